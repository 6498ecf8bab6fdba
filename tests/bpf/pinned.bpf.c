// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A map that is pinned by its name. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} shared SEC(".maps");

SEC("raw_tp")
int touch(void *ctx)
{
	__u32 key = 7;
	__u64 value = 49;

	return bpf_map_update_elem(&shared, &key, &value, BPF_ANY);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
