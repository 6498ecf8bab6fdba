// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Hashes whose keys have padding, beside those whose keys and values have none that matters. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct flow {
	__u8 protocol;
	__u32 address; /* after three bytes of padding */
	__u16 port; /* and two bytes behind */
};

struct padded_by_hand {
	__u8 protocol;
	__u8 pad[3];
	__u32 address;
};

struct packed {
	__u8 protocol;
	__u32 address;
} __attribute__((packed));

typedef const struct flow flow_key;

struct pair {
	struct flow flows[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, struct flow);
	__type(value, __u32);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8);
	__type(key, flow_key);
	__type(value, __u32);
} recent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8);
	__type(key, struct pair);
	__type(value, __u32);
} pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, struct padded_by_hand);
	__type(value, struct flow);
} by_hand SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, struct packed);
	__type(value, struct flow);
} packed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u64);
	__type(value, struct flow);
} plain SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow);
} values SEC(".maps");

/* stores two keys that are equal member by member, one with padding of ones and one with zeros */
SEC("raw_tp")
int store_twice(void *ctx)
{
	struct flow flow;
	__u32 one = 1, two = 2;

	__builtin_memset(&flow, 0xff, sizeof(flow));
	flow.protocol = 6;
	flow.address = 7;
	flow.port = 8;
	bpf_map_update_elem(&flows, &flow, &one, BPF_ANY);
	__builtin_memset(&flow, 0, sizeof(flow));
	flow.protocol = 6;
	flow.address = 7;
	flow.port = 8;
	bpf_map_update_elem(&flows, &flow, &two, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
