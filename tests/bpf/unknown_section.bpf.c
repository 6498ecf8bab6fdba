// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A section that names no program type. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

SEC("no_such_kind/hook")
int homeless(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
