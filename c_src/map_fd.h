/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A map's descriptor that threads use while another closes it.  Each use is counted, and whoever comes
 * last closes: the closing call or the last user.
 */
#pragma once

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

/* What calls give, negated, after pybpf_map_close(); no map operation of the kernel does. */
#define PYBPF_CLOSED ESHUTDOWN

#define PYBPF_MAP_CLOSED (1u << 31)

struct pybpf_map {
	_Atomic uint32_t users; /* with PYBPF_MAP_CLOSED */
	_Atomic int fd;
	uint32_t key_size;
};

static inline void pybpf_map_close_fd(struct pybpf_map *map)
{
	int fd = atomic_exchange(&map->fd, -1);

	if (fd >= 0)
		close(fd);
}

static inline void pybpf_map_leave(struct pybpf_map *map)
{
	if (atomic_fetch_sub(&map->users, 1) == (PYBPF_MAP_CLOSED | 1))
		pybpf_map_close_fd(map);
}

/* The descriptor, valid until pybpf_map_leave(), or -PYBPF_CLOSED. */
static inline int pybpf_map_enter(struct pybpf_map *map)
{
	if (atomic_fetch_add(&map->users, 1) & PYBPF_MAP_CLOSED) {
		pybpf_map_leave(map);
		return -PYBPF_CLOSED;
	}
	return map->fd;
}
