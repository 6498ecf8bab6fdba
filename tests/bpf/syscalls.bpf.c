// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Programs that are called like functions. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct request {
	__u32 a;
	__s32 b;
	__u64 sum;
	char name[8];
};

SEC("syscall")
int add_two_numbers(struct request *request)
{
	request->sum = request->a + request->b;
	request->name[0] = '<';
	return request->b;
}

SEC("syscall")
int take_bytes(void *context)
{
	__u32 *number = context;

	*number += 1;
	return *number;
}

SEC("xdp")
int no_system_call(struct xdp_md *context)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
