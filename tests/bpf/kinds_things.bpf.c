// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Maps of what the kernel has besides numbers: cgroups, and storage of processes, sockets, files. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

__u32 key;

#define STORAGE(kind)                            \
	__uint(type, BPF_MAP_TYPE_##kind);       \
	__uint(map_flags, BPF_F_NO_PREALLOC);    \
	__type(key, int);                        \
	__type(value, __u64)

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} cgroups SEC(".maps");

struct {
	STORAGE(TASK_STORAGE);
} tasks SEC(".maps");

struct {
	STORAGE(SK_STORAGE);
} sockets SEC(".maps");

struct {
	STORAGE(INODE_STORAGE);
} files SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, __u64);
} sent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, __u64);
} sent_by_cpu SEC(".maps");

/* whether this process is in the cgroup cgroups[key]; a negative errno without one */
SEC("raw_tp")
int is_under(void *ctx)
{
	return bpf_current_task_under_cgroup(&cgroups, key);
}

/* one more for this process: how many now */
SEC("raw_tp")
int count_task(void *ctx)
{
	__u64 *count = bpf_task_storage_get(&tasks, bpf_get_current_task_btf(), 0,
					    BPF_LOCAL_STORAGE_GET_F_CREATE);

	return count ? ++*count : -1;
}

/* one more packet of this cgroup, and of this socket where its value is there; all may pass */
SEC("cgroup_skb/egress")
int count_packet(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	__u64 *count = bpf_get_local_storage(&sent, 0);

	__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	count = bpf_get_local_storage(&sent_by_cpu, 0);
	*count += 1;
	sk = sk ? bpf_sk_fullsock(sk) : 0;
	count = sk ? bpf_sk_storage_get(&sockets, sk, 0, 0) : 0;
	if (count)
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
