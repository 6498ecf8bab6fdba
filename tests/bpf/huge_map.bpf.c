// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A map that is larger than any machine's memory. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 30);
	__uint(key_size, 4);
	__uint(value_size, 1 << 20);
} huge SEC(".maps");

SEC("raw_tp")
int use_huge(void *ctx)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&huge, &key) != 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
