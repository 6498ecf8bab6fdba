// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* User ring buffers, whose samples are drained into a ring buffer that user space reads. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define LARGEST (1 << 24)

struct command {
	__u8 kind;
	__u64 number; /* after seven bytes of padding */
	char name[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
	__type(value, struct command);
} commands SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} untyped SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} drained SEC(".maps");

__u64 drain_flags;
__u32 most = 1 << 30; /* samples in one run */
__u32 size;	      /* of the last sample */
__u32 taken;
char copy[4096];

static long keep(struct bpf_dynptr *sample, void *context)
{
	__u32 step, length;
	char last;

	/* in memory, of which the verifier follows no values: it would go 2^25 ways */
	size = 0;
	for (step = LARGEST; step; step >>= 1)
		if (bpf_dynptr_read(&last, 1, sample, size + step - 1, 0) == 0)
			size += step;
	length = size;
	if (length <= sizeof(copy) && bpf_dynptr_read(copy, length, sample, 0, 0) == 0)
		bpf_ringbuf_output(&drained, copy, length, 0);
	return ++taken >= most;
}

/* the number of samples, or a negative errno */
SEC("syscall")
int drain_commands(void *input)
{
	taken = 0;
	return bpf_user_ringbuf_drain(&commands, keep, NULL, drain_flags);
}

SEC("syscall")
int drain_untyped(void *input)
{
	taken = 0;
	return bpf_user_ringbuf_drain(&untyped, keep, NULL, drain_flags);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
