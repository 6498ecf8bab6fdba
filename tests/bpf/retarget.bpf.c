// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Counts, by parent, what happens to processes: execs, unless the program is given another target. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

SEC("tp_btf/sched_process_exec")
int count(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 parent = BPF_CORE_READ(task, real_parent, tgid);
	__u64 one = 1, *seen = bpf_map_lookup_elem(&counts, &parent);

	if (seen)
		__atomic_fetch_add(seen, 1, __ATOMIC_RELAXED);
	else
		bpf_map_update_elem(&counts, &parent, &one, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
