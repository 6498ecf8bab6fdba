/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rings of records in memory that the kernel shares: BPF ring buffers, and the perf rings of one CPU each.
 * A reader looks at the next record where it is, copies what it needs, and then releases it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct record {
	const char *data;
	uint32_t size;
	uint64_t time; /* of a perf ring that was asked for it: CLOCK_MONOTONIC, nanoseconds */
};

/* Records of `size` bytes on their way to `to`, up to one of another size. */
struct copying {
	char *to;
	size_t size, most;	/* most: how many there is room for */
	uint64_t count, bytes;	/* of those copied; bytes with what rounds records up */
	int64_t other;		/* the size that ended it; -1: none */
	int failure;		/* errno */
};

#define ROUNDED_UP 8 /* a record's size may be greater by less than this, to be aligned */

static inline bool pybpf_suits(struct copying *copying, uint32_t size)
{
	if (size >= copying->size && size - copying->size < ROUNDED_UP)
		return true;
	copying->other = size;
	return false;
}

static inline void pybpf_copy(struct copying *copying, const char *data, uint32_t size)
{
	memcpy(copying->to, data, copying->size);
	copying->to += copying->size;
	copying->count++;
	copying->bytes += size;
}

struct ring;

struct ring_kind {
	/* 1 with the next record, 0 where there is none yet, or a negative errno. */
	int (*peek)(struct ring *ring, struct record *record);
	/*
	 * Give the record of the last peek back to the kernel as room for others.  False where another
	 * reader of the ring has done so: what was copied of it may be anything.
	 */
	bool (*release)(struct ring *ring);
	/* Copy and release records as long as they suit. */
	void (*copy)(struct ring *ring, struct copying *copying);
	/* Bytes that wait, what stands around records included. */
	uint64_t (*backlog)(const struct ring *ring);
	/* Records that the kernel could not put in, as far as it tells. */
	uint64_t (*lost)(const struct ring *ring);
	void (*free)(struct ring *ring);
};

struct ring {
	const struct ring_kind *kind;
	uint32_t source;    /* which of the reader's maps it belongs to */
	uint32_t slack;	    /* by how much the kernel may round a record's size up */
	uint64_t highest;   /* backlog so far */
};

static inline void pybpf_ring_saw(struct ring *ring, uint64_t backlog)
{
	if (backlog > ring->highest)
		ring->highest = backlog;
}

/* Records of one size that follow each other: `count` of them, `stride` bytes apart. */
struct ring_run {
	size_t offset, count, stride; /* the offset is that of the first one's data in the memory */
	uint32_t size;
	uint64_t start, end; /* positions in the ring */
};

/* A BPF ring buffer of `size` bytes; 0 or a negative errno. */
int pybpf_bpf_ring_open(int map_fd, size_t size, struct ring **ring);

/* The records that wait, up to `most` and as far as they are alike: 1, 0 or a negative errno. */
int pybpf_bpf_ring_run(struct ring *ring, size_t most, struct ring_run *run);

/* Give them back; false where another reader has done so with some. */
bool pybpf_bpf_ring_consume(struct ring *ring, const struct ring_run *run);

/* Keep the ring, and thereby its memory: free() has to come once more. */
void pybpf_bpf_ring_keep(struct ring *ring);

/* The memory of its records, and how long it is: twice the ring, so that all are in one part. */
const char *pybpf_bpf_ring_memory(const struct ring *ring, size_t *size);

struct perf_options {
	uint32_t pages;	    /* of the ring: a power of two */
	uint32_t wakeup;    /* after so many records, or with `watermark` bytes, a reader is woken */
	bool watermark;
	bool overwrite;	    /* what is new replaces what is oldest */
	bool timed;	    /* with the time of each record */
};

/* The perf ring of one CPU, entered in a perf event array; 0 or a negative errno. */
int pybpf_perf_ring_open(int map_fd, int cpu, const struct perf_options *options, struct ring **ring);

/* What to poll for it; it belongs to the ring. */
int pybpf_perf_ring_fd(const struct ring *ring);
