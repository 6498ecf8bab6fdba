// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The least of a scheduler: the kernel's own defaults, and a count of how often a task comes to run. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

long seen;

SEC("struct_ops/running")
void BPF_PROG(running, struct task_struct *p)
{
	seen++;
}

SEC(".struct_ops.link")
struct sched_ext_ops scheduler = {
	.running = (void *)running,
	.name = "pybpf_test",
};

char LICENSE[] SEC("license") = "GPL";
