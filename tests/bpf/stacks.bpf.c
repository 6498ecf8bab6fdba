// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Kernel and user stacks of one process, taken where it enters one system call. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define DEPTH 64

enum { /* the kernel's bpf_map_type, flags of maps and of bpf_get_stackid() */
	STACK_TRACE = 7,
	STACK_BUILD_ID = 1 << 5,
	USER_STACK = 1 << 8,
};

struct stack_map {
	__uint(type, STACK_TRACE);
	__uint(max_entries, 64);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, DEPTH * sizeof(__u64));
};

/* one map each: in a common one, two stacks may have the same hash, and the second is refused */
struct stack_map kernel_stacks SEC(".maps");
struct stack_map user_stacks SEC(".maps");

struct {
	__uint(type, STACK_TRACE);
	__uint(map_flags, STACK_BUILD_ID);
	__uint(max_entries, 64);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, DEPTH * 32); /* struct bpf_stack_build_id */
} build_ids SEC(".maps");

const volatile __u32 target_pid = 0;
const volatile __u64 target_syscall = 0;

long kernel_stack = -1;
long user_stack = -1;
long user_build_ids = -1;

SEC("raw_tp/sys_enter")
int take_stacks(__u64 *arguments) /* registers, number of the system call */
{
	if (bpf_get_current_pid_tgid() >> 32 != target_pid || arguments[1] != target_syscall)
		return 0;
	kernel_stack = bpf_get_stackid(arguments, &kernel_stacks, 0);
	user_stack = bpf_get_stackid(arguments, &user_stacks, USER_STACK);
	user_build_ids = bpf_get_stackid(arguments, &build_ids, USER_STACK);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
