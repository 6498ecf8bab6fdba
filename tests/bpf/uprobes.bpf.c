// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A program for each way to watch functions of user space. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

long calls;
long value;   /* the first argument of the last call, or what it returned */
long cookies; /* the sum of those seen */
int session_ends; /* what a session returns at the entry: 1 does without the return */

/* one after the other: atomic counting takes Linux 5.12 */
static __always_inline int call(void *ctx)
{
	calls++;
	return 0;
}

static __always_inline int call_with_cookie(void *ctx)
{
	cookies += bpf_get_attach_cookie(ctx);
	return call(ctx);
}

SEC("?uprobe")
int entry(struct pt_regs *ctx)
{
	value = PT_REGS_PARM1(ctx);
	return call(ctx);
}

SEC("?uprobe/libwatched.so.1:add_one")
int by_section(struct pt_regs *ctx)
{
	return call(ctx);
}

SEC("?uprobe/libwatched.so.1:no_such_function")
int by_wrong_section(struct pt_regs *ctx)
{
	return call(ctx);
}

SEC("?uretprobe")
int at_return(struct pt_regs *ctx)
{
	value = PT_REGS_RC(ctx);
	return call(ctx);
}

SEC("?uprobe")
int with_cookie(void *ctx)
{
	return call_with_cookie(ctx);
}

SEC("?uprobe.multi")
int many(void *ctx)
{
	return call(ctx);
}

SEC("?uprobe.multi")
int many_with_cookies(void *ctx)
{
	return call_with_cookie(ctx);
}

SEC("?uretprobe.multi")
int many_at_return(struct pt_regs *ctx)
{
	value = PT_REGS_RC(ctx);
	return call(ctx);
}

SEC("?uprobe.session")
int session(void *ctx)
{
	call(ctx);
	return session_ends & 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
