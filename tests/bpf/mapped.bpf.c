// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Arrays whose memory user space shares. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define ENTRIES 600 /* more than a page of any of them */

struct reading { /* 12 bytes, 16 apart */
	__u32 sequence;
	__s16 level;
	__u8 flags;
	char tag[3];
};

#define MAPPED(value_type)                   \
	__uint(type, BPF_MAP_TYPE_ARRAY);    \
	__uint(map_flags, BPF_F_MMAPABLE);   \
	__uint(max_entries, ENTRIES);        \
	__type(key, __u32);                  \
	__type(value, value_type)

struct {
	MAPPED(__u8);
} u8s SEC(".maps");

struct {
	MAPPED(__u16);
} u16s SEC(".maps");

struct {
	MAPPED(__u32);
} u32s SEC(".maps");

struct {
	MAPPED(__u64);
} u64s SEC(".maps");

struct {
	MAPPED(__s32);
} s32s SEC(".maps");

struct {
	MAPPED(__be32);
} be32s SEC(".maps");

struct {
	MAPPED(struct reading);
} readings SEC(".maps");

#define INCREMENT(map, type)                                             \
	{                                                                \
		type *value = bpf_map_lookup_elem(&map, &key);         \
                                                                         \
		if (value)                                               \
			*value += 1;                                     \
	}

__u32 key;

/* one more of the element `key` of every map */
SEC("raw_tp")
int increment(void *ctx)
{
	struct reading *reading;

	INCREMENT(u8s, __u8)
	INCREMENT(u16s, __u16)
	INCREMENT(u32s, __u32)
	INCREMENT(u64s, __u64)
	INCREMENT(s32s, __s32)
	reading = bpf_map_lookup_elem(&readings, &key);
	if (reading) {
		reading->sequence += 1;
		reading->level -= 1;
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
