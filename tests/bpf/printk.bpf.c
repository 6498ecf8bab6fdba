// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A program that prints to trace_pipe. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

__u64 next;   /* the number of the line to print */
__u32 lines;  /* how many to print in one run, at most 1000 */
char text[64];

SEC("raw_tp")
int print(void *ctx)
{
	for (int i = 0; i < 1000 && i < lines; i++)
		bpf_printk("%llu %s", next++, text);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
