// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

long seen;

SEC("xdp")
int count(struct xdp_md *ctx)
{
	__atomic_fetch_add(&seen, 1, __ATOMIC_RELAXED);
	return XDP_PASS;
}

/* what takes its place: counts in steps of a thousand */
SEC("xdp")
int count_thousands(struct xdp_md *ctx)
{
	__atomic_fetch_add(&seen, 1000, __ATOMIC_RELAXED);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
