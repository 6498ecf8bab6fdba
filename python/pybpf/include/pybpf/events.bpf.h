/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Records for BPF ring buffers; those that a ring has no room for are counted.
 *
 *	#include "vmlinux.h"			// or <linux/bpf.h>
 *	#include <bpf/bpf_helpers.h>
 *	#include <pybpf/events.bpf.h>		// clang -I"$(python -c 'import pybpf; print(pybpf.get_include())')"
 *
 *	PYBPF_EMIT(events, &event, sizeof(event));	// a copy of it; 0, or a negative errno where it is lost
 *
 *	struct event *event = PYBPF_RESERVE(events, sizeof(*event));
 *	if (!event)				// lost
 *		return 0;
 *	event->pid = bpf_get_current_pid_tgid() >> 32;
 *	PYBPF_SUBMIT(event);			// or PYBPF_DISCARD(event)
 *
 * "events" is the name of the ring's variable, of at most 31 characters; a size that is reserved is a
 * constant.  Losses come where room is asked for.  So bpf_ringbuf_submit() and bpf_ringbuf_discard() do
 * as well, with flags such as BPF_RB_NO_WAKEUP; and whoever asks otherwise, as by
 * bpf_ringbuf_reserve_dynptr(), says PYBPF_LOST(events) where that fails.
 *
 * The counts are in the map pybpf_drops, by the ring's name, for each CPU.  pybpf finds it in the object
 * of the ring or, where that is pinned, pinned as "pybpf_drops" in the same folder.
 *
 * What holds.  Once a reader of the ring has begun, records tried = submitted + discarded + lost, exactly:
 * in all kinds of programs, in NMIs too, on all CPUs at once.  For the reader has made the ring's count
 * in the map, and programs look it up, which takes no lock, and add to it, which is atomic: neither
 * fails.  Before that, the first program that loses a record makes the count.  It cannot where it has
 * interrupted the kernel at work on the same bucket of the map (-EBUSY, -EDEADLK), or where 64 rings
 * have counts; then that record is lost uncounted.
 *
 * Linux 5.8, in sleepable programs 5.12.  Files with this header may be linked to one object (bpftool gen
 * object): its map is weak, so that they share one.
 */
#ifndef PYBPF_EVENTS_BPF_H
#define PYBPF_EVENTS_BPF_H

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 64);
	__type(key, char[32]);
	__type(value, __u64);
} pybpf_drops SEC(".maps") __weak;

static __always_inline void pybpf_count_lost(__u64 a, __u64 b, __u64 c, __u64 d)
{
	__u64 name[4] = {a, b, c, d}, zero = 0;
	__u64 *count = bpf_map_lookup_elem(&pybpf_drops, name);

	if (!count) {
		/* refused where another CPU came first: its entry serves as well */
		bpf_map_update_elem(&pybpf_drops, name, &zero, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&pybpf_drops, name);
	}
	if (count) /* atomic, for another program may interrupt this one on its CPU */
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
}

/*
 * Eight characters of a name as the number that they are in memory.  As a char array, the name would
 * be a constant in a section of its own, and libbpf would make a map of that.
 */
#define PYBPF_WORD(name, i)                                                                          \
	(PYBPF_CHAR(name, i, 0) | PYBPF_CHAR(name, i, 1) | PYBPF_CHAR(name, i, 2) |                  \
	 PYBPF_CHAR(name, i, 3) | PYBPF_CHAR(name, i, 4) | PYBPF_CHAR(name, i, 5) |                  \
	 PYBPF_CHAR(name, i, 6) | PYBPF_CHAR(name, i, 7))
#define PYBPF_CHAR(name, i, k)                                                                       \
	((__u64)(__u8)(name)[(i) + (k) < sizeof(name) ? (i) + (k) : sizeof(name) - 1] << PYBPF_SHIFT(k))
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define PYBPF_SHIFT(k) (8 * (k))
#else
#define PYBPF_SHIFT(k) (56 - 8 * (k))
#endif

#define PYBPF_LOST(ring)                                                                             \
	({                                                                                           \
		_Static_assert(sizeof(#ring) <= 32, "a ring's name has at most 31 characters here"); \
		(void)&(ring);                                                                       \
		pybpf_count_lost(PYBPF_WORD(#ring, 0), PYBPF_WORD(#ring, 8), PYBPF_WORD(#ring, 16),  \
				 PYBPF_WORD(#ring, 24));                                             \
	})

#define PYBPF_EMIT(ring, ptr, size)                                                                  \
	({                                                                                           \
		long pybpf_error_ = bpf_ringbuf_output(&(ring), (ptr), (size), 0);                   \
		if (pybpf_error_)                                                                    \
			PYBPF_LOST(ring);                                                            \
		pybpf_error_;                                                                        \
	})

#define PYBPF_RESERVE(ring, size)                                                                    \
	({                                                                                           \
		void *pybpf_record_ = bpf_ringbuf_reserve(&(ring), (size), 0);                       \
		if (!pybpf_record_)                                                                  \
			PYBPF_LOST(ring);                                                            \
		pybpf_record_;                                                                       \
	})

#define PYBPF_SUBMIT(record) bpf_ringbuf_submit((record), 0)
#define PYBPF_DISCARD(record) bpf_ringbuf_discard((record), 0)

#endif
