// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Writes more into rings than these can hold, by all that pybpf/events.bpf.h has, and counts on its own
 * how many records each program has tried to write.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <pybpf/events.bpf.h>

#define RECORDS_PER_RUN 256

enum writer {
	EMIT,
	RESERVE,
	EMIT_QUIETLY,
	EMIT_LONG,
	EMIT_IN_INTERRUPT,
	WRITERS,
};

struct record {
	__u32 cpu;
	__u32 writer;
	__u64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring_with_a_name_as_long_as_any SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WRITERS);
	__type(key, __u32);
	__type(value, __u64);
} tried SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} discarded SEC(".maps");

static __always_inline void count(void *map, __u32 index)
{
	__u64 *counter = bpf_map_lookup_elem(map, &index);

	if (counter)
		__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* A record that has the number of those that this writer has tried on this CPU before. */
static __always_inline struct record next_record(__u32 writer)
{
	struct record record = {.cpu = bpf_get_smp_processor_id(), .writer = writer};
	__u64 *number = bpf_map_lookup_elem(&tried, &writer);

	if (number)
		record.number = *number;
	count(&tried, writer);
	return record;
}

/* Each program writes args[0] records, at most RECORDS_PER_RUN. */

SEC("raw_tp")
int emit(__u64 *args)
{
	for (int i = 0; i < RECORDS_PER_RUN && i < args[0]; i++) {
		struct record record = next_record(EMIT);

		PYBPF_EMIT(events, &record, sizeof(record));
	}
	return 0;
}

/* discards every fourth of those that it gets room for */
SEC("raw_tp")
int reserve(__u64 *args)
{
	for (int i = 0; i < RECORDS_PER_RUN && i < args[0]; i++) {
		struct record next = next_record(RESERVE);
		struct record *record = PYBPF_RESERVE(events, sizeof(*record));

		if (!record)
			continue;
		*record = next;
		if (next.number % 4 == 3) {
			PYBPF_DISCARD(record);
			count(&discarded, 0);
		} else {
			PYBPF_SUBMIT(record);
		}
	}
	return 0;
}

SEC("raw_tp")
int emit_quietly(__u64 *args)
{
	for (int i = 0; i < RECORDS_PER_RUN && i < args[0]; i++) {
		struct record record = next_record(EMIT_QUIETLY);

		if (bpf_ringbuf_output(&events, &record, sizeof(record), BPF_RB_NO_WAKEUP))
			PYBPF_LOST(events);
	}
	return 0;
}

SEC("raw_tp")
int emit_long(__u64 *args)
{
	for (int i = 0; i < RECORDS_PER_RUN && i < args[0]; i++) {
		struct record record = next_record(EMIT_LONG);

		PYBPF_EMIT(ring_with_a_name_as_long_as_any, &record, sizeof(record));
	}
	return 0;
}

/* gives what PYBPF_EMIT gave */
SEC("raw_tp")
int emit_one(__u64 *args)
{
	struct record record = next_record(EMIT);

	return PYBPF_EMIT(events, &record, sizeof(record));
}

/* one record for each timer that expires, in the middle of whatever its CPU does */
SEC("raw_tp/hrtimer_expire_entry")
int emit_in_interrupt(void *ctx)
{
	struct record record = next_record(EMIT_IN_INTERRUPT);

	PYBPF_EMIT(events, &record, sizeof(record));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
