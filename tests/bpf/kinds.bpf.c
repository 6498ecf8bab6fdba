// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Maps of most kinds, and for each a program that reads what user space wrote, or writes for it. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

/* what test and program hand over */
__u32 key;
__u64 value;

struct tally {
	__u64 packets;
	__u32 peak; /* before four bytes of padding */
};

#define ENTRIES(kind, entries, key_type, value_type) \
	__uint(type, BPF_MAP_TYPE_##kind);           \
	__uint(max_entries, entries);                \
	__type(key, key_type);                       \
	__type(value, value_type)

/* value = map[key]; 1 where there is one */
#define READ(map)                                                 \
	SEC("raw_tp")                                             \
	int read_##map(void *ctx)                                 \
	{                                                         \
		__u64 *found = bpf_map_lookup_elem(&map, &key);   \
                                                                  \
		if (found)                                        \
			value = *found;                           \
		return found != 0;                                \
	}

/* map[key] = value; 0 or a negative errno */
#define WRITE(map)                                                       \
	SEC("raw_tp")                                                    \
	int write_##map(void *ctx)                                       \
	{                                                                \
		return bpf_map_update_elem(&map, &key, &value, BPF_ANY); \
	}

/* ---- hashes and arrays --------------------------------------------------------------------------- */

struct {
	ENTRIES(HASH, 4, __u32, __u64);
} hash SEC(".maps");
READ(hash)
WRITE(hash)

struct {
	ENTRIES(ARRAY, 4, __u32, __u64);
} array SEC(".maps");
READ(array)
WRITE(array)

struct {
	ENTRIES(LRU_HASH, 64, __u32, __u64);
} lru SEC(".maps");
READ(lru)
WRITE(lru)

/* ---- a value per CPU ----------------------------------------------------------------------------- */

struct {
	ENTRIES(PERCPU_HASH, 4, __u32, __u64);
} cpu_hash SEC(".maps");
READ(cpu_hash)
WRITE(cpu_hash)

struct {
	ENTRIES(PERCPU_ARRAY, 4, __u32, __u64);
} cpu_array SEC(".maps");
READ(cpu_array)
WRITE(cpu_array)

struct {
	ENTRIES(LRU_PERCPU_HASH, 64, __u32, __u64);
} cpu_lru SEC(".maps");
READ(cpu_lru)
WRITE(cpu_lru)

struct {
	ENTRIES(PERCPU_HASH, 4, __u32, struct tally);
} tallies SEC(".maps");

/* one packet more on this CPU, and `value` as its peak where that is higher; the packets so far */
SEC("raw_tp")
int tally(void *ctx)
{
	struct tally *seen = bpf_map_lookup_elem(&tallies, &key);

	if (!seen)
		return -1;
	if (seen->peak < value)
		seen->peak = value;
	return ++seen->packets;
}

/* ---- longest prefixes ---------------------------------------------------------------------------- */

struct prefix4 {
	__u32 length;
	__u8 address[4];
};

struct prefix6 {
	__u32 length;
	__u8 address[16];
};

struct place { /* of what is no address, though as long as one */
	__u32 length;
	__u8 country;
	__u8 region;
	__u16 town;
};

struct {
	ENTRIES(LPM_TRIE, 8, struct prefix4, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} routes4 SEC(".maps");

struct {
	ENTRIES(LPM_TRIE, 8, struct prefix6, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} routes6 SEC(".maps");

struct {
	ENTRIES(LPM_TRIE, 8, struct place, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} places SEC(".maps");

__u8 address[16];

SEC("raw_tp")
int route4(void *ctx)
{
	struct prefix4 prefix = {.length = 32};
	__u32 *found;

	__builtin_memcpy(prefix.address, address, sizeof(prefix.address));
	found = bpf_map_lookup_elem(&routes4, &prefix);
	return found ? *found : -1;
}

SEC("raw_tp")
int route6(void *ctx)
{
	struct prefix6 prefix = {.length = 128};
	__u32 *found;

	__builtin_memcpy(prefix.address, address, sizeof(prefix.address));
	found = bpf_map_lookup_elem(&routes6, &prefix);
	return found ? *found : -1;
}

SEC("raw_tp")
int add_route4(void *ctx)
{
	struct prefix4 prefix = {.length = key};
	__u32 hop = value;

	__builtin_memcpy(prefix.address, address, sizeof(prefix.address));
	return bpf_map_update_elem(&routes4, &prefix, &hop, BPF_ANY);
}

SEC("raw_tp")
int find_place(void *ctx)
{
	struct place place = {.length = 32, .country = address[0], .region = address[1]};
	__u32 *found = bpf_map_lookup_elem(&places, &place);

	return found ? *found : -1;
}

/* ---- without keys -------------------------------------------------------------------------------- */

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 3);
	__type(value, __u64);
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 3);
	__type(value, __u64);
} stack SEC(".maps");

#define PUSH(map)                                                \
	SEC("raw_tp")                                            \
	int push_##map(void *ctx)                                \
	{                                                        \
		return bpf_map_push_elem(&map, &value, BPF_ANY); \
	}

#define POP(map)                                       \
	SEC("raw_tp")                                  \
	int pop_##map(void *ctx)                       \
	{                                              \
		return bpf_map_pop_elem(&map, &value); \
	}

PUSH(queue)
POP(queue)
PUSH(stack)
POP(stack)

/* ---- programs ------------------------------------------------------------------------------------ */

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 3);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} programs SEC(".maps");

SEC("raw_tp")
int say_seven(void *ctx)
{
	return 7;
}

SEC("raw_tp")
int say_eight(void *ctx)
{
	return 8;
}

/* what the program programs[key] returns, 0 where there is none */
SEC("raw_tp")
int call(void *ctx)
{
	bpf_tail_call(ctx, &programs, key);
	return 0;
}

/* ---- maps ---------------------------------------------------------------------------------------- */

struct inner {
	ENTRIES(ARRAY, 2, __u32, __u64);
} first SEC(".maps"), second SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 3);
	__type(key, __u32);
	__array(values, struct inner);
} map_array SEC(".maps") = {.values = {[0] = &first}};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 3);
	__type(key, __u32);
	__array(values, struct inner);
} map_hash SEC(".maps");

/* 1 where value is what both elements of outer[key] hold, 0 without a map, -1 where they differ */
static int read_both(void *outer)
{
	__u32 zero = 0, one = 1;
	void *inner = bpf_map_lookup_elem(outer, &key);
	__u64 *a, *b;

	if (!inner)
		return 0;
	a = bpf_map_lookup_elem(inner, &zero);
	b = bpf_map_lookup_elem(inner, &one);
	if (!a || !b || *a != *b)
		return -1;
	value = *a;
	return 1;
}

SEC("raw_tp")
int read_map_array(void *ctx)
{
	return read_both(&map_array);
}

SEC("raw_tp")
int read_map_hash(void *ctx)
{
	return read_both(&map_hash);
}

/* ---- events and stacks --------------------------------------------------------------------------- */

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

/* `value` to the perf event events[key]; 0 or a negative errno */
SEC("raw_tp")
int output(void *ctx)
{
	return bpf_perf_event_output(ctx, &events, key, &value, sizeof(value));
}

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 16);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, 16 * sizeof(__u64));
} stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(map_flags, BPF_F_STACK_BUILD_ID);
	__uint(max_entries, 16);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, 16 * 32); /* struct bpf_stack_build_id */
} build_ids SEC(".maps");

SEC("raw_tp")
int take_stack(void *ctx)
{
	return bpf_get_stackid(ctx, &stacks, 0);
}

SEC("raw_tp")
int take_build_ids(void *ctx)
{
	return bpf_get_stackid(ctx, &build_ids, BPF_F_USER_STACK);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
