// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Maps that programs change while user space reads them, and structs that tell what they belong to. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct id {
	__u32 shard;
	__u32 number;
};

struct record {
	struct id id;
	__u64 sequence;
	__u64 check; /* of all of the above */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct id);
	__type(value, struct record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");

/* which keys the programs use */
struct range {
	__u32 first, count;
};

#define AT_MOST 1024

/* Puts keys into numbers that are not there, up to the first without room; how many. */
SEC("raw_tp")
int add(struct range *range)
{
	__u32 first = range->first, count = range->count;
	int i;

	for (i = 0; i < AT_MOST && i < count; i++) {
		__u32 key = first + i;
		__u64 value = key;

		if (bpf_map_update_elem(&numbers, &key, &value, BPF_NOEXIST))
			break;
	}
	return i;
}

/* Takes keys out of numbers. */
SEC("raw_tp")
int remove(struct range *range)
{
	__u32 first = range->first, count = range->count;
	int i;

	for (i = 0; i < AT_MOST && i < count; i++) {
		__u32 key = first + i;

		bpf_map_delete_elem(&numbers, &key);
	}
	return i;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
