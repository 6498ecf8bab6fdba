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
COUNTER(tp_btf, "tp_btf/task_rename")
COUNTER(fentry, "fentry/do_sys_openat2")
COUNTER(fexit, "fexit/do_sys_openat2")
COUNTER(fmod_ret, "fmod_ret/security_file_open")
COUNTER(fsession, "fsession/do_sys_openat2")
COUNTER(lsm, "lsm/file_open")
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

/* let the process open no file */

#define EPERM 1

SEC("?fmod_ret/security_file_open")
int fmod_ret_deny(void *ctx)
{
	return is_watched() ? -EPERM : 0;
}

SEC("?lsm/file_open")
int lsm_deny(void *ctx)
{
	return is_watched() ? -EPERM : 0;
}

/* of another program */

int __attribute__((noinline)) answer(int number)
{
	asm volatile("" : "+r"(number));
	return number + 1;
}

int __attribute__((noinline)) another(int number)
{
	asm volatile("" : "+r"(number));
	return number + 2;
}

SEC("?xdp")
int target(struct xdp_md *ctx)
{
	return answer(10) + another(100);
}

SEC("?fentry")
int of_program(void *ctx)
{
	return hit();
}

SEC("?freplace/answer")
int replacement(int number)
{
	return number * 4;
}

SEC("?fentry")
int of_module(void *ctx)
{
	return hit();
}

char _license[] SEC("license") = "GPL";
