/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* An agent that there are three versions of: they differ in what they add and keep. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

const volatile __u32 version = VERSION;
__u64 packets; /* the same in all versions */

struct flow {
	__u32 mark;
#if VERSION >= 3
	__u32 zone;
#endif
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct flow);
	__type(value, __u64);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} packets_by_version SEC(".maps"); /* by version */

SEC("xdp")
int count_packets(struct xdp_md *ctx)
{
	__u32 key = version;
	__u64 *count = bpf_map_lookup_elem(&packets_by_version, &key);

	if (count)
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&packets, 1, __ATOMIC_RELAXED);
	return XDP_PASS;
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} execs_by_version SEC(".maps");

SEC("raw_tp/sched_process_exec")
int count_execs(void *ctx)
{
	__u32 key = version;
	__u64 *count = bpf_map_lookup_elem(&execs_by_version, &key);

	if (count)
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	return 0;
}

#if VERSION >= 2
__u64 exits;

SEC("raw_tp/sched_process_exit")
int count_exits(void *ctx)
{
	__atomic_fetch_add(&exits, 1, __ATOMIC_RELAXED);
	return 0;
}
#else
SEC("raw_tp/sched_process_fork")
int only_in_the_first(void *ctx)
{
	return 0;
}
#endif

char _license[] SEC("license") = "Dual BSD/GPL";
