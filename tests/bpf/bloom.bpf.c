// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A bloom filter, which Linux 5.16 was the first to have. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

__u64 value;

struct {
	__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
	__uint(max_entries, 100);
	__uint(map_extra, 4); /* hashes */
	__type(value, __u64);
} bloom SEC(".maps");

SEC("raw_tp")
int push_bloom(void *ctx)
{
	return bpf_map_push_elem(&bloom, &value, BPF_ANY);
}

/* 0 where it may hold `value` */
SEC("raw_tp")
int peek_bloom(void *ctx)
{
	return bpf_map_peek_elem(&bloom, &value);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
