/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The perf rings behind a BPF_MAP_TYPE_PERF_EVENT_ARRAY, one per CPU.  Here a record may lie across the
 * end of the memory, and is then put together elsewhere.
 *
 * A ring that is overwritten is written backwards by the kernel and mapped read-only: from its head on
 * lie the newest records, the newest first.  What is new is copied while the kernel adds nothing.
 */
#define _GNU_SOURCE
#include "rings.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shared_fd.h"

#ifndef PERF_FORMAT_LOST
#define PERF_FORMAT_LOST_ (1u << 4) /* Linux 6.0 */
#else
#define PERF_FORMAT_LOST_ PERF_FORMAT_LOST
#endif

struct perf_ring {
	struct ring ring;
	struct perf_event_mmap_page *page;
	const char *data;
	uint64_t mask;
	int fd, map_fd, cpu;
	bool timed, counts_lost;
	uint64_t counted_lost; /* by the records that tell of it */
	uint64_t unreadable;   /* samples of more than 64 KiB, of which the kernel reserves the rest */
	uint64_t behind;       /* the position behind the record of the last peek */
	char *copy;	       /* of a record in two parts; of the whole ring where it is overwritten */
	size_t page_size;
	/* where it is overwritten: the head of the last copy, and where records begin in it */
	uint64_t head;
	uint32_t *starts;
	size_t start_count;
};

/* ---- one record ------------------------------------------------------------------------------------ */

/*
 * A sample's raw data, which follow their size and, where asked for, the time.  NULL as the data where
 * they are more than the header's 16 bits can say.
 */
static void parse_sample(struct perf_ring *p, const struct perf_event_header *header,
			 struct record *record)
{
	const size_t before = sizeof(*header) + (p->timed ? sizeof(record->time) : 0);
	const char *at = (const char *)(header + 1);

	record->data = NULL;
	record->time = 0;
	if (header->size >= before + sizeof(record->size)) {
		if (p->timed)
			memcpy(&record->time, at, sizeof(record->time));
		at = (const char *)header + before;
		memcpy(&record->size, at, sizeof(record->size));
		if (record->size <= header->size - before - sizeof(record->size))
			record->data = at + sizeof(record->size);
	}
	p->unreadable += !record->data;
}

/* A record whole, in place where it can be. */
static const struct perf_event_header *whole(struct perf_ring *p, uint64_t position, uint16_t size)
{
	size_t start = position & p->mask, first = p->mask + 1 - start;

	if (size <= first)
		return (const struct perf_event_header *)(p->data + start);
	memcpy(p->copy, p->data + start, first);
	memcpy(p->copy + first, p->data, size - first);
	return (const struct perf_event_header *)p->copy;
}

static void count_lost(struct perf_ring *p, const struct perf_event_header *header)
{
	const uint64_t *numbers = (const uint64_t *)(header + 1); /* the event's id, how many */

	if (header->type == PERF_RECORD_LOST && header->size >= sizeof(*header) + 2 * sizeof(*numbers))
		p->counted_lost += numbers[1];
}

/* ---- in order -------------------------------------------------------------------------------------- */

static uint64_t head_of(const struct perf_ring *p)
{
	return __atomic_load_n(&p->page->data_head, __ATOMIC_ACQUIRE);
}

static const struct perf_event_header *header_at(const struct perf_ring *p, uint64_t position)
{
	return (const struct perf_event_header *)(p->data + (position & p->mask));
}

/*
 * The record at a position before the head: its size, or a negative errno.  A sample is parsed into
 * *record; what else there is counts what it says and leaves NULL as the data.
 */
static int read_at(struct perf_ring *p, uint64_t position, uint64_t head, struct record *record)
{
	const struct perf_event_header *header = header_at(p, position);
	uint16_t size = header->size;

	record->data = NULL;
	if (size < sizeof(*header) || size > head - position)
		return -EBADMSG;
	header = whole(p, position, size);
	if (header->type != PERF_RECORD_SAMPLE)
		count_lost(p, header);
	else
		parse_sample(p, header, record);
	return size;
}

static int peek(struct ring *ring, struct record *record)
{
	struct perf_ring *p = (struct perf_ring *)ring;
	uint64_t position = p->page->data_tail, head = head_of(p);

	pybpf_ring_saw(ring, head - position);
	while (position != head) {
		int size = read_at(p, position, head, record);

		if (size < 0)
			return size;
		position += (uint64_t)size;
		p->behind = position;
		if (record->data)
			return 1;
		__atomic_store_n(&p->page->data_tail, position, __ATOMIC_RELEASE);
	}
	return 0;
}

static void copy(struct ring *ring, struct copying *copying)
{
	struct perf_ring *p = (struct perf_ring *)ring;
	uint64_t position = p->page->data_tail, head = head_of(p);

	pybpf_ring_saw(ring, head - position);
	while (position != head && copying->count < copying->most) {
		struct record record;
		int size = read_at(p, position, head, &record);

		if (size < 0) {
			copying->failure = -size;
			break;
		}
		if (record.data) {
			if (!pybpf_suits(copying, record.size))
				break;
			pybpf_copy(copying, record.data, record.size);
		}
		position += (uint64_t)size;
	}
	__atomic_store_n(&p->page->data_tail, position, __ATOMIC_RELEASE);
}

static bool release(struct ring *ring)
{
	struct perf_ring *p = (struct perf_ring *)ring;

	__atomic_store_n(&p->page->data_tail, p->behind, __ATOMIC_RELEASE);
	return true;
}

static uint64_t backlog(const struct ring *ring)
{
	const struct perf_ring *p = (const struct perf_ring *)ring;

	return head_of(p) - p->page->data_tail;
}

/* ---- overwritten ----------------------------------------------------------------------------------- */

/*
 * Forget the oldest of a full ring, as many as a record can overwrite: a program may have been in the middle
 * of writing one when the ring was paused.
 */
static void drop_edge(struct perf_ring *p, uint64_t largest)
{
	uint64_t size = p->mask + 1, end = size;

	while (p->start_count && end + largest > size)
		end = p->starts[--p->start_count];
}

/* Note where samples begin in the `fresh` bytes that were copied; whether there are any. */
static int find_starts(struct perf_ring *p, uint64_t fresh)
{
	uint64_t position = 0, largest = 0;

	while (position + sizeof(struct perf_event_header) <= fresh) {
		const struct perf_event_header *header =
			(const struct perf_event_header *)(p->copy + position);

		if (header->size < sizeof(*header) || position + header->size > fresh)
			break; /* the rest is overwritten */
		if (header->type == PERF_RECORD_SAMPLE)
			p->starts[p->start_count++] = (uint32_t)position;
		else
			count_lost(p, header);
		if (header->size > largest)
			largest = header->size;
		position += header->size;
	}
	if (fresh > p->mask)
		drop_edge(p, largest);
	return p->start_count > 0;
}

/* Copy what came since the last copy, while nothing is added; whether that is anything. */
static int copy_fresh(struct perf_ring *p)
{
	uint64_t size = p->mask + 1, head, fresh;
	size_t start, first;

	if (head_of(p) == p->head)
		return 0;
	if (ioctl(p->fd, PERF_EVENT_IOC_PAUSE_OUTPUT, 1))
		return -errno;
	head = head_of(p);
	fresh = p->head - head; /* the head goes down */
	if (fresh > size)
		fresh = size;
	start = head & p->mask;
	first = fresh < size - start ? fresh : size - start;
	memcpy(p->copy, p->data + start, first);
	memcpy(p->copy + first, p->data, fresh - first);
	p->head = head;
	if (ioctl(p->fd, PERF_EVENT_IOC_PAUSE_OUTPUT, 0))
		return -errno;
	pybpf_ring_saw(&p->ring, fresh);
	return find_starts(p, fresh);
}

static const struct perf_event_header *oldest_in_copy(const struct perf_ring *p)
{
	return (const struct perf_event_header *)(p->copy + p->starts[p->start_count - 1]);
}

/* The oldest first, which is the last one in the copy. */
static int peek_backwards(struct ring *ring, struct record *record)
{
	struct perf_ring *p = (struct perf_ring *)ring;

	for (;;) {
		int found = p->start_count ? 1 : copy_fresh(p);

		if (found <= 0)
			return found;
		parse_sample(p, oldest_in_copy(p), record);
		if (record->data)
			return 1;
		p->start_count--;
	}
}

static bool release_backwards(struct ring *ring)
{
	((struct perf_ring *)ring)->start_count--;
	return true;
}

static void copy_backwards(struct ring *ring, struct copying *copying)
{
	struct record record;

	while (copying->count < copying->most) {
		int found = peek_backwards(ring, &record);

		if (found < 0)
			copying->failure = -found;
		if (found <= 0 || !pybpf_suits(copying, record.size))
			break;
		pybpf_copy(copying, record.data, record.size);
		release_backwards(ring);
	}
}

static uint64_t backlog_backwards(const struct ring *ring)
{
	const struct perf_ring *p = (const struct perf_ring *)ring;
	uint64_t fresh = p->head - head_of(p), size = p->mask + 1;
	uint64_t copied = p->start_count ? p->starts[p->start_count - 1] + oldest_in_copy(p)->size : 0;

	return copied + (fresh > size ? size : fresh);
}

/* ---- opening and closing --------------------------------------------------------------------------- */

static uint64_t lost(const struct ring *ring)
{
	const struct perf_ring *p = (const struct perf_ring *)ring;
	uint64_t values[2]; /* the event's count, and PERF_FORMAT_LOST */

	if (p->counts_lost && read(p->fd, values, sizeof(values)) == sizeof(values))
		return values[1] + p->unreadable;
	return p->counted_lost + p->unreadable;
}

static void free_ring(struct ring *ring)
{
	struct perf_ring *p = (struct perf_ring *)ring;

	if (p->map_fd >= 0)
		close(p->map_fd);
	if (p->page)
		munmap(p->page, p->page_size + p->mask + 1);
	if (p->fd >= 0)
		close(p->fd);
	free(p->copy);
	free(p->starts);
	free(p);
}

static const struct ring_kind perf_kind = {peek, release, copy, backlog, lost, free_ring};
static const struct ring_kind overwritten_kind = {
	peek_backwards, release_backwards, copy_backwards, backlog_backwards, lost, free_ring,
};

static int open_event(struct perf_ring *p, const struct perf_options *options)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_BPF_OUTPUT,
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_RAW | (options->timed ? PERF_SAMPLE_TIME : 0),
		.read_format = PERF_FORMAT_LOST_,
		.watermark = options->watermark,
		.wakeup_events = options->wakeup, /* in a union with the watermark */
		.write_backward = options->overwrite,
		.use_clockid = options->timed,
		.clockid = CLOCK_MONOTONIC,
	};

	p->counts_lost = true;
	p->fd = (int)syscall(__NR_perf_event_open, &attr, -1, p->cpu, -1, PERF_FLAG_FD_CLOEXEC);
	if (p->fd < 0 && errno == EINVAL) {
		attr.read_format = 0; /* before Linux 6.0 */
		p->counts_lost = false;
		p->fd = (int)syscall(__NR_perf_event_open, &attr, -1, p->cpu, -1, PERF_FLAG_FD_CLOEXEC);
	}
	return p->fd < 0 ? -errno : 0;
}

static int map_memory(struct perf_ring *p, bool overwrite)
{
	size_t size = p->mask + 1;
	int protection = overwrite ? PROT_READ : PROT_READ | PROT_WRITE;
	void *memory = mmap(NULL, p->page_size + size, protection, MAP_SHARED, p->fd, 0);

	if (memory == MAP_FAILED)
		return -errno;
	p->page = memory;
	p->data = (const char *)memory + p->page_size;
	p->copy = malloc(overwrite ? size : UINT16_MAX + 1);
	if (overwrite)
		p->starts = malloc(size / sizeof(struct perf_event_header) * sizeof(*p->starts));
	return p->copy && (p->starts || !overwrite) ? 0 : -ENOMEM;
}

/* Another file of the map, or a negative errno; it takes CAP_SYS_ADMIN. */
static int reopen(int map_fd)
{
	struct bpf_map_info info = {0};
	union bpf_attr attr = {
		.info = {.bpf_fd = (uint32_t)map_fd, .info_len = sizeof(info), .info = (uintptr_t)&info},
	};
	int fd;

	if (pybpf_syscall(__NR_bpf, BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof(attr.info)))
		return -errno;
	memset(&attr, 0, sizeof(attr));
	attr.map_id = info.id;
	fd = (int)pybpf_syscall(__NR_bpf, BPF_MAP_GET_FD_BY_ID, &attr,
				offsetof(union bpf_attr, open_flags) + sizeof(attr.open_flags));
	return fd < 0 ? -errno : fd;
}

/*
 * From here on, programs on that CPU find it in the map.  The kernel takes an entry out when the file through
 * which it was made is closed; so one of our own leaves in place what another reader has put there
 * meanwhile.  Without one, the entry stays until the map is closed or another reader takes its place:
 * nobody can tell whose it is, and without its memory the event refuses records.
 */
static int enter(struct perf_ring *p, int map_fd)
{
	uint32_t key = (uint32_t)p->cpu, value = (uint32_t)p->fd;
	int file = reopen(map_fd), err;

	if (file < 0)
		file = fcntl(map_fd, F_DUPFD_CLOEXEC, 0);
	if (file < 0)
		return -errno;
	err = pybpf_element(BPF_MAP_UPDATE_ELEM, file, &key, &value, 0);
	if (err) {
		close(file);
		return err;
	}
	p->map_fd = file;
	return 0;
}

int pybpf_perf_ring_open(int map_fd, int cpu, const struct perf_options *options, struct ring **ring)
{
	struct perf_ring *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->ring.kind = options->overwrite ? &overwritten_kind : &perf_kind;
	p->ring.slack = ROUNDED_UP - 1;
	p->cpu = cpu;
	p->timed = options->timed;
	p->fd = p->map_fd = -1;
	p->page_size = (size_t)sysconf(_SC_PAGESIZE);
	p->mask = (uint64_t)options->pages * p->page_size - 1;
	err = open_event(p, options);
	if (!err)
		err = map_memory(p, options->overwrite);
	if (!err)
		err = enter(p, map_fd);
	if (err) {
		free_ring(&p->ring);
		return err;
	}
	*ring = &p->ring;
	return 0;
}

int pybpf_perf_ring_fd(const struct ring *ring)
{
	return ((const struct perf_ring *)ring)->fd;
}
