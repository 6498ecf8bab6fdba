// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Ring buffers, and programs that write what their caller asks for into them on test_run. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define PAYLOAD 32768 /* a power of two */
#define HELD_NS 10000000000ULL
#define SPINS 4096

struct event {
	__u64 sequence;
	__u64 inverted;
};

struct line {
	__u32 number;
	char text[];
};

enum kind { STARTED = 1, STOPPED = 2 };

struct started {
	enum kind kind;
	__u32 pid;
	char comm[16];
};

struct stopped {
	enum kind kind;
	__s32 status;
};

struct named_otherwise {
	__u16 kind;
	__u16 pid;
};

/* so that they are in the object's BTF */
struct started started;
struct stopped stopped;
struct named_otherwise named_otherwise;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
	__type(value, struct event);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
	__type(value, struct event);
} others SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
	__type(value, struct line);
} lines SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} untyped SEC(".maps");

/* what `send` sends parts of */
char payload[2 * PAYLOAD];

__u32 held;	  /* how many records `hold` has reserved so far */
__u32 let_go;	  /* set by user space: how many of them are to be submitted */

struct emission {
	__u32 count;
	__u32 discard_every; /* 0: none */
	__u32 to_others;     /* every other event goes to the other ring */
	__u32 accepted;	     /* written back: how many the kernel has taken, discarded ones left out */
	__u64 first;
};

static long emit_one(__u32 i, struct emission *emission)
{
	bool discarded = emission->discard_every && i % emission->discard_every == 0;
	struct event *event;

	if (emission->to_others && i % 2)
		event = bpf_ringbuf_reserve(&others, sizeof(*event), 0);
	else
		event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	event->sequence = emission->first + i;
	event->inverted = ~event->sequence;
	if (discarded) {
		bpf_ringbuf_discard(event, 0);
		return 0;
	}
	bpf_ringbuf_submit(event, 0);
	emission->accepted++;
	return 0;
}

SEC("syscall")
int emit(struct emission *given)
{
	struct emission emission = {
		.count = given->count,
		.discard_every = given->discard_every,
		.to_others = given->to_others,
		.first = given->first,
	};

	bpf_loop(emission.count, emit_one, &emission, 0);
	given->accepted = emission.accepted;
	return 0;
}

enum ring { UNTYPED, LINES, EVENTS };

struct part {
	__u32 offset;
	__u32 size;
	enum ring ring;
};

/* puts payload[offset:offset + size] into a ring; what the kernel says to that */
SEC("syscall")
int send(struct part *part)
{
	__u32 offset = part->offset, size = part->size;

	if (offset >= PAYLOAD || size > PAYLOAD)
		return -1;
	if (part->ring == UNTYPED)
		return bpf_ringbuf_output(&untyped, payload + offset, size, 0);
	if (part->ring == LINES)
		return bpf_ringbuf_output(&lines, payload + offset, size, 0);
	return bpf_ringbuf_output(&events, payload + offset, size, 0);
}

struct holding {
	__u64 sequence;
	__u32 discard;
	__u32 number;
	__u64 until;
};

static long spin(__u32 i, struct holding *holding)
{
	return *(volatile __u32 *)&let_go >= holding->number || bpf_ktime_get_ns() > holding->until;
}

static long spin_on(__u32 i, struct holding *holding)
{
	bpf_loop(SPINS, spin, holding, 0);
	return spin(i, holding);
}

/* reserves an event, and submits or discards it when it is told to, or after ten seconds */
SEC("syscall")
int hold(struct holding *given)
{
	struct holding holding = {
		.number = __sync_fetch_and_add(&held, 0) + 1,
		.until = bpf_ktime_get_ns() + HELD_NS,
	};
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return -1;
	event->sequence = given->sequence;
	event->inverted = ~given->sequence;
	__sync_fetch_and_add(&held, 1);
	bpf_loop(1 << 20, spin_on, &holding, 0);
	if (given->discard)
		bpf_ringbuf_discard(event, 0);
	else
		bpf_ringbuf_submit(event, 0);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
