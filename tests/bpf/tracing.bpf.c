// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A program for each way to trace the kernel: counts what one process of one thread does. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

pid_t process;
long hits;
long cookies; /* the sum of those seen */

static bool is_watched(void)
{
	return bpf_get_current_pid_tgid() >> 32 == process;
}

static int hit(void)
{
	if (is_watched())
		hits++;
	return 0;
}

static __always_inline int hit_with_cookie(void *ctx)
{
	if (is_watched())
		cookies += bpf_get_attach_cookie(ctx);
	return hit();
}

#define COUNTER(name, section)                 \
	SEC("?" section)                       \
	int name(void *ctx)                    \
	{                                      \
		return hit();                  \
	}                                      \
                                               \
	SEC("?" section)                       \
	int name##_cookie(void *ctx)           \
	{                                      \
		return hit_with_cookie(ctx);   \
	}

COUNTER(kprobe, "kprobe")
COUNTER(kretprobe, "kretprobe")
COUNTER(kprobe_multi, "kprobe.multi")
COUNTER(kretprobe_multi, "kretprobe.multi")
COUNTER(kprobe_session, "kprobe.session")
COUNTER(ksyscall, "ksyscall")
COUNTER(kretsyscall, "kretsyscall")

COUNTER(tracepoint, "tp")
COUNTER(raw_tracepoint, "raw_tp")
COUNTER(perf_event, "perf_event")

/* read more than the tracepoint has */

SEC("?tp")
int tracepoint_greedy(__u64 *ctx)
{
	return ctx[100] != 0;
}

SEC("?raw_tp")
int raw_tracepoint_greedy(__u64 *ctx)
{
	return ctx[11] != 0;
}

char _license[] SEC("license") = "GPL";
