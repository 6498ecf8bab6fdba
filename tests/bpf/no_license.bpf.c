// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Calls a helper that the kernel gives to GPL-compatible programs only, and names no license. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

SEC("tp/sched/sched_process_exec")
int prints(void *ctx)
{
	bpf_printk("exec");
	return 0;
}
