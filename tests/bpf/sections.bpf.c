// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Sections that are not what their names look like, and one that names no hook. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

const volatile __u32 constant = 1;
__u32 initialised = 2;
__u32 zero;
__u32 like_constant SEC(".data.rodata") = 3;
__u32 like_zero SEC(".data.bss") = 4;

/* names that the class of a section has, too */
__u32 keys;
__u32 map;

SEC("raw_tp")
int sum(void *ctx)
{
	return constant + 10 * initialised + 100 * zero + 1000 * like_constant + 10000 * like_zero +
	       100000 * keys + 1000000 * map;
}

SEC("tp")
int no_hook(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
