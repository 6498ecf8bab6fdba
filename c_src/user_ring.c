/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Samples of user ring buffers.  Python may be interrupted after any call, so a place is taken and
 * given back in one call each, together with the note of it that Python keeps.
 */
#include "shim.h"

#include <errno.h>
#include <string.h>

int pybpf_sample_put(struct user_ring_buffer *ring, uint32_t size, const void *data)
{
	void *memory = user_ring_buffer__reserve(ring, size);

	if (!memory)
		return -errno;
	memcpy(memory, data, size);
	user_ring_buffer__submit(ring, memory);
	return 0;
}

int pybpf_place_take(struct user_ring_buffer *ring, uint32_t size, struct pybpf_place *place)
{
	place->memory = user_ring_buffer__reserve(ring, size);
	return place->memory ? 0 : -errno;
}

/* Of threads that come at once, one gets it. */
static void *take_out(struct pybpf_place *place)
{
	return __atomic_exchange_n(&place->memory, NULL, __ATOMIC_ACQ_REL);
}

bool pybpf_place_submit(struct user_ring_buffer *ring, struct pybpf_place *place, uint32_t size,
			const void *data)
{
	void *memory = take_out(place);

	if (!memory)
		return false;
	memcpy(memory, data, size);
	user_ring_buffer__submit(ring, memory);
	return true;
}

bool pybpf_place_discard(struct user_ring_buffer *ring, struct pybpf_place *place)
{
	void *memory = take_out(place);

	if (!memory)
		return false;
	user_ring_buffer__discard(ring, memory);
	return true;
}
