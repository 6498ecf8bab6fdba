/* SPDX-License-Identifier: BSD-2-Clause */
/* Elements of maps: one by one, many at once, and key by key where the kernel has no batches. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define ENOTSUPP_ 524 /* the kernel's own, which user space has no name for */

/* ---- one element --------------------------------------------------------------------------------- */

int pybpf_map_element(struct pybpf_fd *map, int command, const void *key, const void *value,
		      uint64_t flags)
{
	return pybpf_shared_element(map, command, key, value, flags);
}

/* ---- many elements ------------------------------------------------------------------------------- */

/* Whether the kernel said that it has no batches, or none for this type of map. */
static bool lacks_batches(int err, uint32_t done)
{
	/* before Linux 5.6 an unknown command is invalid */
	return err == -ENOTSUPP_ || err == -EOPNOTSUPP || (err == -EINVAL && done == 0);
}

int pybpf_map_lookup_many(struct pybpf_fd *map, const char *keys, size_t key_size,
			  char *values, size_t value_size, char *found, size_t count, uint64_t flags)
{
	int fd = pybpf_fd_enter(map), err = 0;

	if (fd < 0)
		return fd;
	for (size_t i = 0; i < count; i++) {
		err = pybpf_element(BPF_MAP_LOOKUP_ELEM, fd, keys + i * key_size,
				    values + i * value_size, flags);
		if (err && err != -ENOENT)
			break;
		found[i] = err == 0;
		err = 0;
	}
	pybpf_fd_leave(map);
	return err;
}

/* Where an element is refused, *done says how many were stored before it. */
int pybpf_map_update_many(struct pybpf_fd *map, const char *keys, size_t key_size, const char *values,
			  size_t value_size, uint32_t count, uint64_t flags, uint32_t *done)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts, .elem_flags = flags);
	int fd = pybpf_fd_enter(map), err;

	if (fd < 0)
		return fd;
	*done = count;
	err = bpf_map_update_batch(fd, keys, values, done, &opts);
	if (err && lacks_batches(err, *done == count ? 0 : *done)) {
		err = 0;
		for (*done = 0; *done < count; ++*done) {
			err = bpf_map_update_elem(fd, keys + *done * key_size,
						  values + *done * value_size, flags);
			if (err)
				break;
		}
	}
	pybpf_fd_leave(map);
	return err;
}

/* Keys that are not there are passed over; *removed counts those that were. */
int pybpf_map_delete_many(struct pybpf_fd *map, const char *keys, size_t key_size, uint32_t count,
			  uint32_t *removed)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	int fd = pybpf_fd_enter(map), err = 0;
	bool batches = true;

	if (fd < 0)
		return fd;
	*removed = 0;
	for (uint32_t i = 0; i < count;) {
		const char *rest = keys + i * key_size;
		uint32_t done = batches ? count - i : 1;

		if (batches) {
			err = bpf_map_delete_batch(fd, rest, &done, &opts);
			if (err && lacks_batches(err, done == count - i ? 0 : done)) {
				batches = false;
				continue;
			}
		} else {
			err = bpf_map_delete_elem(fd, rest);
			done = err ? 0 : 1;
		}
		if (err && err != -ENOENT)
			break;
		*removed += done;
		i += done + (err ? 1 : 0);
		err = 0;
	}
	pybpf_fd_leave(map);
	return err;
}

int pybpf_map_read_batch(struct pybpf_fd *map, bool remove, void *from, void *to, char *keys,
			 char *values, uint32_t *count, uint64_t flags)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts, .elem_flags = flags);
	int fd = pybpf_fd_enter(map), err;

	if (fd < 0)
		return fd;
	err = remove ? bpf_map_lookup_and_delete_batch(fd, from, to, keys, values, count, &opts)
		     : bpf_map_lookup_batch(fd, from, to, keys, values, count, &opts);
	pybpf_fd_leave(map);
	return err;
}

/* ---- key by key ---------------------------------------------------------------------------------- */

/*
 * The kernel goes from key to key in an order of its own, starts over when the key to go on from has
 * vanished, and meets again a key that was updated meanwhile.  So a walk remembers the keys that it gave,
 * in a table of open addressing whose entries are places in `keys`, counted from 1, below half of the
 * key's hash.  Where it has lost its way, it goes back to the last of them that is still there: `trail`
 * has those not known to be gone.
 *
 * A hash gives the memory of a removed element to a new one at once.  Where that happens in the middle of
 * the kernel's own step, the step ends in the new element's bucket and skips all in between.  Nothing tells
 * of it; so a walk that has seen the map change goes over it a second time and gives what it had missed.
 */
struct pybpf_walk {
	struct pybpf_fd *map;
	size_t key_size;
	char *previous, *next, *first, *missing;
	char *keys;
	uint64_t *table;
	uint32_t *trail;
	size_t count, trail_count, capacity, table_size;
	uint64_t in_vain, in_vain_limit;
	bool started, lost, has_missing, changed, second, ended;
};

#define MIN_KEYS 1024
#define MAX_KEYS_AT_FIRST (1u << 20)

struct pybpf_walk *pybpf_walk_new(struct pybpf_fd *map, size_t key_size, uint32_t expected,
				  uint64_t in_vain_limit)
{
	struct pybpf_walk *walk = calloc(1, sizeof(*walk));

	if (!walk)
		return NULL;
	walk->map = map;
	walk->key_size = key_size;
	walk->in_vain_limit = in_vain_limit;
	walk->capacity = MIN_KEYS;
	while (walk->capacity < expected && walk->capacity < MAX_KEYS_AT_FIRST)
		walk->capacity *= 2;
	walk->previous = malloc(4 * key_size);
	if (!walk->previous) {
		free(walk);
		return NULL;
	}
	walk->next = walk->previous + key_size;
	walk->first = walk->next + key_size;
	walk->missing = walk->first + key_size;
	return walk;
}

void pybpf_walk_free(struct pybpf_walk *walk)
{
	free(walk->previous);
	free(walk->keys);
	free(walk->table);
	free(walk->trail);
	free(walk);
}

static uint64_t hash(const char *key, size_t size)
{
	uint64_t h = 0x9e3779b97f4a7c15u;

	for (; size; size -= size < 8 ? size : 8) {
		uint64_t part = 0;

		memcpy(&part, key, size < 8 ? size : 8);
		h = (h ^ part) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
		key += size < 8 ? size : 8;
	}
	return h;
}

#define PLACE(entry) ((uint32_t)(entry))
#define MET_AGAIN 0x100000000u /* in an entry: in the second round */
#define HASH_HALF 0xfffffffe00000000u

/* Where a key of that hash is in the table, or would be. */
static uint64_t *entry_of(const struct pybpf_walk *walk, const char *key, uint64_t hash)
{
	size_t mask = walk->table_size - 1, at = (size_t)hash & mask;

	for (;; at = (at + 1) & mask) {
		uint64_t entry = walk->table[at];

		if (!entry)
			break;
		if ((entry & HASH_HALF) == (hash & HASH_HALF) &&
		    !memcmp(walk->keys + (size_t)(PLACE(entry) - 1) * walk->key_size, key, walk->key_size))
			break;
	}
	return &walk->table[at];
}

static bool make_room(struct pybpf_walk *walk)
{
	size_t capacity = 2 * walk->capacity, old_size = walk->table_size;
	char *keys;
	uint32_t *trail;
	uint64_t *table, *old = walk->table;

	if (walk->table && walk->count < walk->capacity)
		return true;
	if (!walk->table)
		capacity = walk->capacity;
	keys = realloc(walk->keys, capacity * walk->key_size);
	if (!keys)
		return false;
	walk->keys = keys;
	trail = realloc(walk->trail, capacity * sizeof(*trail));
	if (!trail)
		return false;
	walk->trail = trail;
	table = calloc(2 * capacity, sizeof(*table));
	if (!table)
		return false;
	walk->table = table;
	walk->table_size = 2 * capacity;
	walk->capacity = capacity;
	for (size_t i = 0; i < old_size; i++) {
		const char *key = keys + (size_t)(PLACE(old[i]) - 1) * walk->key_size;

		if (old[i])
			*entry_of(walk, key, hash(key, walk->key_size)) = old[i];
	}
	free(old);
	return true;
}

/* What a step has come to. */
enum { IN_VAIN, NEW, KNOWN };

/* NEW, KNOWN from the first round alone, or IN_VAIN where this round has met the key before. */
static int remember(struct pybpf_walk *walk, const char *key, uint64_t h)
{
	uint64_t *entry;

	if (!make_room(walk))
		return -ENOMEM;
	entry = entry_of(walk, key, h);
	if (*entry) {
		if (!walk->second || *entry & MET_AGAIN)
			return IN_VAIN;
		*entry |= MET_AGAIN;
		walk->trail[walk->trail_count++] = PLACE(*entry) - 1;
		return KNOWN;
	}
	memcpy(walk->keys + walk->count * walk->key_size, key, walk->key_size);
	walk->trail[walk->trail_count++] = (uint32_t)walk->count;
	*entry = (h & HASH_HALF) | (walk->second ? MET_AGAIN : 0) | ++walk->count;
	return NEW;
}

static int next_key(int fd, const char *key, char *next)
{
	return pybpf_element(BPF_MAP_GET_NEXT_KEY, fd, key, next, 0);
}

/* Whether the kernel has started over, because the key that walk->next should follow is gone. */
static bool started_over(struct pybpf_walk *walk, int fd)
{
	int err = next_key(fd, NULL, walk->first);

	return !err && !memcmp(walk->first, walk->next, walk->key_size);
}

static void go_on_from(struct pybpf_walk *walk, const char *key)
{
	memcpy(walk->previous, key, walk->key_size);
	walk->started = true;
	walk->lost = false;
}

/* Try the last place of the trail. */
static void go_back(struct pybpf_walk *walk, int fd)
{
	const char *key;

	if (!walk->trail_count) {
		walk->started = walk->lost = false;
		return;
	}
	key = walk->keys + walk->trail[walk->trail_count - 1] * walk->key_size;
	if (!next_key(fd, key, walk->next) && started_over(walk, fd))
		walk->trail_count--;
	else
		go_on_from(walk, key);
}

/* One step: NEW with a key in walk->next and its value, where wanted; -ENOENT at the end. */
static int step(struct pybpf_walk *walk, int fd, char *value)
{
	size_t size = walk->key_size;
	int err = next_key(fd, walk->started ? walk->previous : NULL, walk->next);
	uint64_t h;

	if (err)
		return err;
	h = hash(walk->next, size);
	if (walk->table) /* what would be a miss of the cache comes while the kernel looks up */
		__builtin_prefetch(&walk->table[(size_t)h & (walk->table_size - 1)]);
	err = value ? pybpf_element(BPF_MAP_LOOKUP_ELEM, fd, walk->next, value, 0) : 0;
	if (err && err != -ENOENT)
		return err;
	/*
	 * A key that vanished is no place to go on from; but an empty slot that is listed is one, and
	 * comes again.
	 */
	if (err && !(walk->has_missing && !memcmp(walk->missing, walk->next, size))) {
		memcpy(walk->missing, walk->next, size);
		walk->has_missing = walk->changed = true;
		return IN_VAIN;
	}
	err = err ? IN_VAIN : remember(walk, walk->next, h);
	if (err < 0)
		return err;
	if (err == IN_VAIN && walk->started && started_over(walk, fd))
		walk->lost = walk->changed = true;
	else
		go_on_from(walk, walk->next);
	return err;
}

/* From the start again; the places of the first round are no longer those to go back to. */
static void begin_second_round(struct pybpf_walk *walk)
{
	walk->second = true;
	walk->started = walk->lost = walk->has_missing = false;
	walk->trail_count = walk->in_vain = 0;
}

/* Some milliseconds: a signal has to wait so long. */
#define STEPS_OF_A_CALL 16384

/*
 * Up to `capacity` more keys, each once, and their values unless NULL: how many, 0 at the end, -EAGAIN
 * where many steps gave nothing new, -ELOOP where all of them together were too many.
 */
int pybpf_walk_next(struct pybpf_walk *walk, char *keys, char *values, size_t value_size, int capacity)
{
	size_t key_size = walk->key_size;
	int fd = pybpf_fd_enter(walk->map), count = 0, err = 0;

	if (fd < 0)
		return fd;
	for (int i = 0; i < STEPS_OF_A_CALL && count < capacity && !walk->ended; i++) {
		if (walk->lost) {
			go_back(walk, fd);
			continue;
		}
		err = step(walk, fd, values ? values + count * value_size : NULL);
		if (err == NEW)
			memcpy(keys + count++ * key_size, walk->next, key_size);
		else if (err == IN_VAIN && ++walk->in_vain > walk->in_vain_limit)
			err = -ELOOP;
		else if (err == -ENOENT && walk->changed && !walk->second) {
			begin_second_round(walk);
			err = 0;
		} else if (err == -ENOENT)
			walk->ended = true;
		if (err < 0)
			break;
	}
	pybpf_fd_leave(walk->map);
	if (err < 0 && !walk->ended)
		return err;
	return count || walk->ended ? count : -EAGAIN;
}
