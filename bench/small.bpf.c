// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What a small monitor loads: two tracepoints with CO-RE reads, a hash, a ring buffer, a constant. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct record {
	__u32 pid;
	__u32 parent;
	__s32 exit_code;
	char comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} records SEC(".maps");

/* nothing is recorded unless a process is named: only loading is measured */
const volatile __u32 only_pid = 0xffffffff;

static __always_inline int emit(struct task_struct *task, __s32 exit_code)
{
	__u32 pid = BPF_CORE_READ(task, tgid);
	__u64 one = 1, *count;
	struct record *record;

	if (pid != only_pid)
		return 0;
	count = bpf_map_lookup_elem(&seen, &pid);
	if (count)
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	else
		bpf_map_update_elem(&seen, &pid, &one, BPF_ANY);
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record)
		return 0;
	record->pid = pid;
	record->parent = BPF_CORE_READ(task, real_parent, tgid);
	record->exit_code = exit_code;
	bpf_get_current_comm(record->comm, sizeof(record->comm));
	bpf_ringbuf_submit(record, 0);
	return 0;
}

SEC("tp/sched/sched_process_exec")
int on_exec(void *ctx)
{
	return emit((void *)bpf_get_current_task(), 0);
}

SEC("tp/sched/sched_process_exit")
int on_exit(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return emit(task, BPF_CORE_READ(task, exit_code));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
