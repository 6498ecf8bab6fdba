/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A descriptor that threads use while another closes it.  Each use is counted, and whoever comes last
 * closes: the closing call or the last user.
 */
#pragma once

#include <errno.h>
#include <linux/bpf.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* In the library whose syscall() is routed through the shim, straight to the C library's. */
#ifdef PYBPF_WRAP_SYSCALL
long __real_syscall(long number, ...);
#define pybpf_syscall __real_syscall
#else
#define pybpf_syscall syscall
#endif

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

/*
 * A command on one element of a map (look up, update, delete, pop, next key): 0 or a negative errno.  libbpf
 * does the same, and clears and checks more on the way than a loop over elements can hide.
 */
static inline int pybpf_element(int command, int map_fd, const void *key, const void *value,
				uint64_t flags)
{
	union bpf_attr attr;
	const size_t size = offsetof(union bpf_attr, flags) + sizeof(attr.flags);

	memset(&attr, 0, size);
	attr.map_fd = (uint32_t)map_fd;
	attr.key = (uint64_t)(uintptr_t)key;
	attr.value = (uint64_t)(uintptr_t)value;
	attr.flags = flags;
	return pybpf_syscall(__NR_bpf, command, &attr, size) < 0 ? -errno : 0;
}

/* The same on a shared descriptor; -PYBPF_CLOSED once that is closed. */
static inline int pybpf_shared_element(struct pybpf_fd *map, int command, const void *key,
				       const void *value, uint64_t flags)
{
	int fd = pybpf_fd_enter(map), err;

	if (fd < 0)
		return fd;
	err = pybpf_element(command, fd, key, value, flags);
	pybpf_fd_leave(map);
	return err;
}
