// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A program that prints to its streams, and one of which the kernel reports a fault. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define STDOUT 1
#define STDERR 2

/* as of Linux 7.0; before, it had another argument or another name */
extern int bpf_stream_vprintk(int stream_id, const char *fmt__str, const void *args,
			      __u32 len__sz) __ksym;

__u32 lines;   /* how many to print */
__u64 printed; /* how many of them the kernel took */

static const char counted[] = "line %llu of %s\n";
static const char complaint[] = "complaint %llu\n";

static long print_line(__u32 index, void *context)
{
	__u64 arguments[] = {index, (__u64)(long)"many"};

	if (bpf_stream_vprintk(STDOUT, counted, arguments, sizeof(arguments)) == 0)
		printed++;
	return 0;
}

SEC("syscall")
int print(void *ctx)
{
	__u64 number = 7;

	printed = 0;
	bpf_loop(lines, print_line, NULL, 0);
	bpf_stream_vprintk(STDERR, complaint, &number, sizeof(number));
	return 0;
}

/* until the kernel ends it, after a quarter of a second */
SEC("syscall")
int never_ends(void *ctx)
{
again:
	asm volatile goto("may_goto %l[out]" :::: out);
	goto again;
out:
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
