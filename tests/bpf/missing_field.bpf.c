// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Reads a field that no kernel has. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct task_struct___future {
	int no_such_field;
} __attribute__((preserve_access_index));

SEC("tp/sched/sched_process_exec")
int reads_future(void *ctx)
{
	struct task_struct___future *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, no_such_field);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
