// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Every program that starts on this machine, and every process that ends. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

enum event_kind {
	EXEC = 1,
	EXIT = 2,
};

struct event {
	__u64 time_ns;
	enum event_kind kind;
	__u32 pid;
	__u32 ppid;
	__s32 exit_code;
	char comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
	/* the records' type: pybpf decodes them by it */
	__type(value, struct event);
} events SEC(".maps");

/* how often each name was started */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, char[16]);
	__type(value, __u64);
} starts SEC(".maps");

/* watch this process alone; 0 for all */
const volatile __u32 only_pid = 0;
/* tell of processes that end, too */
const volatile bool with_exits = false;

/* events that did not fit the ring buffer */
__u64 dropped = 0;

static __always_inline int emit(enum event_kind kind, __s32 exit_code)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct event *event;

	if (only_pid && pid != only_pid)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__atomic_fetch_add(&dropped, 1, __ATOMIC_RELAXED);
		return 0;
	}
	event->time_ns = bpf_ktime_get_ns();
	event->kind = kind;
	event->pid = pid;
	event->ppid = BPF_CORE_READ(task, real_parent, tgid);
	event->exit_code = exit_code;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

SEC("tp/sched/sched_process_exec")
int on_exec(void *ctx)
{
	char comm[16] = {};
	__u64 one = 1, *count;

	bpf_get_current_comm(comm, sizeof(comm));
	count = bpf_map_lookup_elem(&starts, comm);
	if (count)
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	else
		bpf_map_update_elem(&starts, comm, &one, BPF_ANY);
	return emit(EXEC, 0);
}

SEC("tp/sched/sched_process_exit")
int on_exit(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 id = bpf_get_current_pid_tgid();

	/* threads end here too; processes end with their first thread */
	if (!with_exits || (__u32)id != id >> 32)
		return 0;
	return emit(EXIT, BPF_CORE_READ(task, exit_code));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
