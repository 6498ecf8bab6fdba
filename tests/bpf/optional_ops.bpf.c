// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Ops of a type that no kernel has, and a program besides. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

SEC("xdp")
int packet(struct xdp_md *ctx)
{
	return XDP_PASS;
}

struct no_such_ops {
	int (*call)(void);
} __attribute__((preserve_access_index));

SEC("struct_ops/call")
int call(void *ctx)
{
	return 0;
}

SEC(".struct_ops")
struct no_such_ops no_ops = {
	.call = (void *)call,
};

char LICENSE[] SEC("license") = "GPL";
