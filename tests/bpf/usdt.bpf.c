// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/usdt.bpf.h>

long calls;
long argument;
long cookie;

static __always_inline int hit(struct pt_regs *ctx)
{
	long first = 0;

	bpf_usdt_arg(ctx, 0, &first);
	argument = first;
	cookie = bpf_usdt_cookie(ctx);
	calls++;
	return 0;
}

SEC("?usdt")
int probe(struct pt_regs *ctx)
{
	return hit(ctx);
}

SEC("?usdt/libwatched.so.1:watched:plain")
int by_section(struct pt_regs *ctx)
{
	return hit(ctx);
}

char _license[] SEC("license") = "Dual BSD/GPL";
