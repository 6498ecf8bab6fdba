// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Maps whose keys and values have a byte order, a range or a text of their own. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __be32);
	__type(value, __be32);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, bool);
	__type(value, bool);
} switches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, char[16]);
	__type(value, __u32);
} names SEC(".maps");

/* the next hop of 127.0.0.1 as four bytes, the first of them lowest; 0 where there is none */
SEC("raw_tp")
int next_hop(void *ctx)
{
	__be32 home = 0;
	__u8 bytes[4] = {127, 0, 0, 1};
	__be32 *hop;

	__builtin_memcpy(&home, bytes, sizeof(home));
	hop = bpf_map_lookup_elem(&routes, &home);
	if (!hop)
		return 0;
	__builtin_memcpy(bytes, hop, sizeof(bytes));
	return bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
