// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

long seen;
long sent_on;

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

/* packets of more than a page come in parts */
SEC("?xdp.frags")
int measure(struct xdp_md *ctx)
{
	long size = bpf_xdp_get_buff_len(ctx);

	if (size > seen)
		seen = size;
	return XDP_DROP;
}

struct target { /* struct bpf_cpumap_val, struct bpf_devmap_val */
	__u32 number;
	__u32 program;
};

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct target);
} cpus SEC(".maps");

SEC("xdp")
int to_cpu(struct xdp_md *ctx)
{
	return bpf_redirect_map(&cpus, 0, 0);
}

SEC("xdp/cpumap")
int at_cpu(struct xdp_md *ctx)
{
	sent_on += 1;
	return XDP_DROP;
}

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct target);
} devices SEC(".maps");

SEC("xdp")
int to_device(struct xdp_md *ctx)
{
	return bpf_redirect_map(&devices, 0, 0);
}

SEC("xdp/devmap")
int at_device(struct xdp_md *ctx)
{
	sent_on += 1;
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
