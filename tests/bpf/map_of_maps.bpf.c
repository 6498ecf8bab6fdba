// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* An array of maps whose pattern is set from outside. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__uint(value_size, 4);
} outer SEC(".maps");

SEC("raw_tp")
int sum_first(void *ctx)
{
	__u32 zero = 0, *value;
	void *inner = bpf_map_lookup_elem(&outer, &zero);

	if (!inner)
		return -1;
	value = bpf_map_lookup_elem(inner, &zero);
	return value ? *value : -2;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
