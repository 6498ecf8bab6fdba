/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * BPF ring buffers (BPF_MAP_TYPE_RINGBUF) in place: the kernel maps the data twice in a row, so that a
 * record is never in two parts.  libbpf reads them too, but hands every record to a callback and does
 * not say where the next one is; records that stay in place need that.
 */
#include "rings.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct bpf_ring {
	struct ring ring;
	uint64_t *consumer;	  /* position up to which records were taken; ours to write */
	const uint64_t *producer; /* position up to which room was given to programs */
	const char *data;
	uint64_t mask;
	uint64_t known;	 /* of the producer's position */
	uint64_t behind; /* the position behind the record of the last peek */
	size_t page_size;
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

/* Whether there is something at that position, as far as programs have got by now. */
static bool is_reached(struct bpf_ring *r, uint64_t position)
{
	if (position < r->known)
		return true;
	r->known = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE);
	if (position < r->known)
		pybpf_ring_saw(&r->ring, r->known - position);
	return position < r->known;
}

static int peek(struct ring *ring, struct record *record)
{
	struct bpf_ring *r = (struct bpf_ring *)ring;
	/* from memory, since another reader may have taken some; that goes well where they take turns */
	uint64_t position = *r->consumer;

	while (is_reached(r, position)) {
		uint32_t header = header_at(r, position);

		if (header & BPF_RINGBUF_BUSY_BIT)
			return 0;
		r->behind = position + taken_by(header);
		if (r->behind > r->known)
			return -EBADMSG;
		if (!(header & BPF_RINGBUF_DISCARD_BIT)) {
			record->data = r->data + (position & r->mask) + BPF_RINGBUF_HDR_SZ;
			record->size = header;
			return 1;
		}
		position = r->behind;
		__atomic_store_n(r->consumer, position, __ATOMIC_RELEASE);
	}
	return 0;
}

static void release(struct ring *ring)
{
	struct bpf_ring *r = (struct bpf_ring *)ring;

	__atomic_store_n(r->consumer, r->behind, __ATOMIC_RELEASE);
}

static void copy(struct ring *ring, struct copying *copying)
{
	struct bpf_ring *r = (struct bpf_ring *)ring;
	uint64_t position = *r->consumer;

	while (copying->count < copying->most && is_reached(r, position)) {
		uint32_t header = header_at(r, position);
		const char *data = r->data + (position & r->mask) + BPF_RINGBUF_HDR_SZ;

		if (header & BPF_RINGBUF_BUSY_BIT)
			break;
		if (position + taken_by(header) > r->known) {
			copying->failure = EBADMSG;
			break;
		}
		if (!(header & BPF_RINGBUF_DISCARD_BIT)) {
			if (!pybpf_suits(copying, header))
				break;
			pybpf_copy(copying, data, header);
		}
		position += taken_by(header);
	}
	__atomic_store_n(r->consumer, position, __ATOMIC_RELEASE);
}

int pybpf_bpf_ring_run(struct ring *ring, size_t most, struct ring_run *run)
{
	struct bpf_ring *r = (struct bpf_ring *)ring;
	struct record first;
	int found = peek(ring, &first);
	uint64_t position;

	if (found <= 0)
		return found;
	run->offset = (size_t)(first.data - r->data);
	run->size = first.size;
	run->stride = taken_by(first.size);
	run->start = position = r->behind - run->stride;
	is_reached(r, UINT64_MAX); /* all that is there */
	for (run->count = 0; run->count < most; run->count++) {
		if (position + run->stride > r->known || header_at(r, position) != first.size)
			break;
		position += run->stride;
	}
	run->end = position;
	return 1;
}

int pybpf_bpf_ring_consume(struct ring *ring, uint64_t start, uint64_t end)
{
	struct bpf_ring *r = (struct bpf_ring *)ring;

	if (*r->consumer != start)
		return -EBUSY;
	__atomic_store_n(r->consumer, end, __ATOMIC_RELEASE);
	return 0;
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

	return __atomic_load_n(r->producer, __ATOMIC_ACQUIRE) - *r->consumer;
}

static uint64_t lost(const struct ring *ring)
{
	(void)ring;
	return 0; /* the programs alone know */
}

static void free_ring(struct ring *ring)
{
	struct bpf_ring *r = (struct bpf_ring *)ring;

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
