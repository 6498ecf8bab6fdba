/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A descriptor that threads use while another closes it.  Each use is counted, and whoever comes last
 * closes: the closing call or the last user.
 */
#pragma once

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

/* What calls give, negated, after pybpf_fd_close(); the kernel's BPF commands never do. */
#define PYBPF_CLOSED ESHUTDOWN

#define PYBPF_FD_CLOSED (1u << 31)

struct pybpf_fd {
	_Atomic uint32_t users; /* with PYBPF_FD_CLOSED */
	_Atomic int number;
};

static inline void pybpf_fd_give_back(struct pybpf_fd *fd)
{
	int number = atomic_exchange(&fd->number, -1);

	if (number >= 0)
		close(number);
}

static inline void pybpf_fd_leave(struct pybpf_fd *fd)
{
	if (atomic_fetch_sub(&fd->users, 1) == (PYBPF_FD_CLOSED | 1))
		pybpf_fd_give_back(fd);
}

/* The number, valid until pybpf_fd_leave(), or -PYBPF_CLOSED. */
static inline int pybpf_fd_enter(struct pybpf_fd *fd)
{
	if (atomic_fetch_add(&fd->users, 1) & PYBPF_FD_CLOSED) {
		pybpf_fd_leave(fd);
		return -PYBPF_CLOSED;
	}
	return fd->number;
}
