/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * BPF ring buffers (BPF_MAP_TYPE_RINGBUF) in place: the kernel maps the data twice in a row, so that a
 * record is never in two parts.  libbpf reads them too, but hands every record to a callback and does
 * not say where the next one is; records that stay in place need that.
 */
#include "rings.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct bpf_ring {
	struct ring ring;
	uint64_t *consumer;	  /* position up to which records were taken; written by who reads */
	const uint64_t *producer; /* position up to which room was given to programs */
	const char *data;
	uint64_t mask;
	uint64_t known; /* of the producer's position */
	uint64_t start; /* position of the record of the last peek */
	uint64_t end;	/* and the one behind it */
	size_t page_size;
	atomic_uint users; /* of the memory: the reader, and views */
};

#define LENGTH(header) ((header) & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT))

static uint32_t header_at(const struct bpf_ring *r, uint64_t position)
{
	return __atomic_load_n((const uint32_t *)(r->data + (position & r->mask)), __ATOMIC_ACQUIRE);
}

/* Bytes that a record takes, with its header. */
static uint64_t taken_by(uint32_t header)
{
	return ((uint64_t)LENGTH(header) + BPF_RINGBUF_HDR_SZ + 7) & ~(uint64_t)7;
}

/* Up to where records were taken: from memory, since others may read the ring as well. */
static uint64_t consumed(const struct bpf_ring *r)
{
	return __atomic_load_n(r->consumer, __ATOMIC_ACQUIRE);
}

/* Give records back to the kernel; false where another reader has done so: they are its, not ours. */
static bool consume(struct bpf_ring *r, uint64_t start, uint64_t end)
{
	return __atomic_compare_exchange_n(r->consumer, &start, end, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_RELAXED);
}

/*
 * Bytes that wait behind that position.  More than the mask where it is none: another reader has gone on
 * meanwhile, or somebody writes nonsense.
 */
static uint64_t waiting(const struct bpf_ring *r, uint64_t position)
{
	return __atomic_load_n(r->producer, __ATOMIC_ACQUIRE) - position;
}

/* Whether there is something at that position, as far as programs have got by now. */
static bool is_reached(struct bpf_ring *r, uint64_t position)
{
	uint64_t bytes;

	if (r->known - position - 1 < r->mask) /* 1 to the mask, of what is known to wait */
		return true;
	bytes = waiting(r, position);
	if (bytes > r->mask)
		return false;
	r->known = position + bytes;
	pybpf_ring_saw(&r->ring, bytes);
	return bytes > 0;
}

/*
 * 1 with the header of the record at that position, 0 where none can be taken yet, -EBADMSG where there is
 * nonsense; anything where another reader has taken the record meanwhile.
 */
static inline int look(struct bpf_ring *r, uint64_t position, uint32_t *header)
{
	if (!is_reached(r, position))
		return waiting(r, position) > r->mask ? -EBADMSG : 0;
	*header = header_at(r, position);
	if (*header & BPF_RINGBUF_BUSY_BIT)
		return 0;
	return position + taken_by(*header) <= r->known ? 1 : -EBADMSG;
}

static int peek(struct ring *ring, struct record *record)
{
	struct bpf_ring *r = (struct bpf_ring *)ring;

	for (;;) {
		uint64_t position = consumed(r);
		uint32_t header;
		int found = look(r, position, &header);

		if (found <= 0) {
			if (consumed(r) == position)
				return found;
			continue; /* another reader was faster */
		}
		r->start = position;
		r->end = position + taken_by(header);
		if (!(header & BPF_RINGBUF_DISCARD_BIT)) {
			record->data = r->data + (position & r->mask) + BPF_RINGBUF_HDR_SZ;
			record->size = header;
			return 1;
		}
		consume(r, r->start, r->end);
	}
}

static bool release(struct ring *ring)
{
	struct bpf_ring *r = (struct bpf_ring *)ring;

	return consume(r, r->start, r->end);
}

/* Copy records from a position on; the one to go on from. */
static uint64_t copy_from(struct bpf_ring *r, uint64_t position, struct copying *copying)
{
	while (copying->count < copying->most) {
		uint32_t header;
		int found = look(r, position, &header);

		if (found <= 0) {
			copying->failure = -found;
			break;
		}
		if (!(header & BPF_RINGBUF_DISCARD_BIT)) {
			if (!pybpf_suits(copying, header))
				break;
			pybpf_copy(copying, r->data + (position & r->mask) + BPF_RINGBUF_HDR_SZ, header);
		}
		position += taken_by(header);
	}
	return position;
}

static void copy(struct ring *ring, struct copying *copying)
{
	struct bpf_ring *r = (struct bpf_ring *)ring;
	struct copying tried;
	uint64_t start, end;

	do {
		tried = *copying;
		start = consumed(r);
		end = copy_from(r, start, &tried);
	} while (!consume(r, start, end));
	*copying = tried;
}

int pybpf_bpf_ring_run(struct ring *ring, size_t most, struct ring_run *run)
{
	struct bpf_ring *r = (struct bpf_ring *)ring;
	struct record first;
	int found = peek(ring, &first);
	uint64_t position, bytes;

	if (found <= 0)
		return found;
	run->offset = (size_t)(first.data - r->data);
	run->size = first.size;
	run->stride = taken_by(first.size);
	run->start = position = r->start;
	bytes = waiting(r, position);
	if (bytes > r->mask)
		return 0; /* another reader was faster */
	for (run->count = 0; run->count < most; run->count++) {
		if (position + run->stride > run->start + bytes || header_at(r, position) != first.size)
			break;
		position += run->stride;
	}
	run->end = position;
	return 1;
}

bool pybpf_bpf_ring_consume(struct ring *ring, const struct ring_run *run)
{
	return consume((struct bpf_ring *)ring, run->start, run->end);
}

const char *pybpf_bpf_ring_memory(const struct ring *ring, size_t *size)
{
	const struct bpf_ring *r = (const struct bpf_ring *)ring;

	*size = 2 * (r->mask + 1);
	return r->data;
}

static uint64_t backlog(const struct ring *ring)
{
	const struct bpf_ring *r = (const struct bpf_ring *)ring;
	uint64_t bytes = waiting(r, consumed(r));

	return bytes <= r->mask ? bytes : r->mask + 1;
}

static uint64_t lost(const struct ring *ring)
{
	(void)ring;
	return 0; /* the programs alone know */
}

void pybpf_bpf_ring_keep(struct ring *ring)
{
	((struct bpf_ring *)ring)->users++;
}

static void free_ring(struct ring *ring)
{
	struct bpf_ring *r = (struct bpf_ring *)ring;

	if (--r->users)
		return;
	if (r->consumer)
		munmap(r->consumer, r->page_size);
	if (r->producer)
		munmap((void *)r->producer, r->page_size + 2 * (r->mask + 1));
	free(r);
}

static const struct ring_kind bpf_ring_kind = {peek, release, copy, backlog, lost, free_ring};

static int map_memory(struct bpf_ring *r, int map_fd)
{
	void *memory = mmap(NULL, r->page_size, PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);

	if (memory == MAP_FAILED)
		return -errno;
	r->consumer = memory;
	memory = mmap(NULL, r->page_size + 2 * (r->mask + 1), PROT_READ, MAP_SHARED, map_fd,
		      (off_t)r->page_size);
	if (memory == MAP_FAILED)
		return -errno;
	r->producer = memory;
	r->data = (const char *)memory + r->page_size;
	return 0;
}

int pybpf_bpf_ring_open(int map_fd, size_t size, struct ring **ring)
{
	struct bpf_ring *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return -ENOMEM;
	r->ring.kind = &bpf_ring_kind;
	r->users = 1;
	r->page_size = (size_t)sysconf(_SC_PAGESIZE);
	r->mask = size - 1;
	err = map_memory(r, map_fd);
	if (err) {
		free_ring(&r->ring);
		return err;
	}
	*ring = &r->ring;
	return 0;
}
