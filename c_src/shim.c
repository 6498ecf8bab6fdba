/* SPDX-License-Identifier: BSD-2-Clause */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- libbpf's messages ------------------------------------------------------------------------- */

static __thread struct {
	char *text;
	size_t size, capacity;
	int level;
} messages = {.level = LIBBPF_INFO};

struct message_header {
	uint32_t level, length;
};

static bool messages_reserve(size_t more)
{
	size_t capacity = messages.capacity ? messages.capacity : 4096;
	char *text;

	while (capacity < messages.size + more)
		capacity *= 2;
	if (capacity == messages.capacity)
		return true;
	text = realloc(messages.text, capacity);
	if (!text)
		return false;
	messages.text = text;
	messages.capacity = capacity;
	return true;
}

static int keep_message(enum libbpf_print_level level, const char *format, va_list arguments)
{
	int saved_errno = errno; /* libbpf reads errno after printing in places */
	va_list again;
	int length;

	if ((int)level > messages.level)
		return 0;
	va_copy(again, arguments);
	length = vsnprintf(NULL, 0, format, arguments);
	if (length >= 0 && messages_reserve(sizeof(struct message_header) + (size_t)length + 1)) {
		struct message_header header = {(uint32_t)level, (uint32_t)length};

		memcpy(messages.text + messages.size, &header, sizeof(header));
		messages.size += sizeof(header);
		vsnprintf(messages.text + messages.size, (size_t)length + 1, format, again);
		messages.size += (size_t)length;
	}
	va_end(again);
	errno = saved_errno;
	return 0;
}

void pybpf_log_install(void)
{
	libbpf_set_print(keep_message);
}

void pybpf_log_level(int level)
{
	messages.level = level;
}

const char *pybpf_log_text(size_t *size)
{
	*size = messages.size;
	return messages.text;
}

/* Frees, so that a thread that ends leaves nothing behind. */
void pybpf_log_clear(void)
{
	free(messages.text);
	messages.text = NULL;
	messages.size = messages.capacity = 0;
}

/* ---- opening ----------------------------------------------------------------------------------- */

int pybpf_open(const void *data, size_t size, const struct pybpf_open_options *options,
	       struct bpf_object **object)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts,
		    .object_name = options->name,
		    .pin_root_path = options->pin_root,
		    .kconfig = options->kconfig,
		    .btf_custom_path = options->btf,
		    .kernel_log_level = options->log_level);

#if LIBBPF_AT_LEAST(1, 4)
	opts.bpf_token_path = options->token;
#endif
	*object = bpf_object__open_mem(data, size, &opts);
	return *object ? 0 : -errno;
}

/* ---- loading, with the verifier's statistics ------------------------------------------------------ */

struct stats {
	struct stats *next;
	int program_fd;
	char text[2048];
};

static __thread struct stats *loaded_stats;
static __thread bool want_stats;

int pybpf_load(struct bpf_object *object)
{
	int err;

	want_stats = true;
	err = bpf_object__load(object);
	want_stats = false;
	return err;
}

/*
 * libbpf maps the live map over its image of the variables from 1.7 on, but not a map that was
 * there before (pinned, reused), whose variables would stay what this object wants them to be.
 * Mapping twice is harmless.  It is mapped elsewhere first because the kernel may refuse after it
 * has taken the image away.
 */
int pybpf_map_variables(const struct bpf_map *map)
{
	uint32_t flags = bpf_map__map_flags(map);
	int protection = flags & BPF_F_RDONLY_PROG ? PROT_READ : PROT_READ | PROT_WRITE;
	int fd = bpf_map__fd(map), err;
	size_t size;
	void *image = bpf_map__initial_value(map, &size), *live;

	if (!image || fd < 0)
		return 0;
	live = mmap(NULL, size, protection, MAP_SHARED, fd, 0);
	if (live == MAP_FAILED)
		return -errno;
	if (mremap(live, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, image) == MAP_FAILED) {
		err = -errno;
		munmap(live, size);
		return err;
	}
	return 0;
}

/* The newest entry wins: libbpf's feature probes load and close programs whose fd comes again. */
const char *pybpf_load_stats(int program_fd)
{
	struct stats *s;

	for (s = loaded_stats; s; s = s->next)
		if (s->program_fd == program_fd)
			return s->text;
	return NULL;
}

void pybpf_load_stats_clear(void)
{
	while (loaded_stats) {
		struct stats *next = loaded_stats->next;

		free(loaded_stats);
		loaded_stats = next;
	}
}

#ifdef PYBPF_WRAP_SYSCALL
#define LOG_LEVEL_STATS 4

long __real_syscall(long number, ...);

/*
 * libbpf first loads each program without a log, and only a refused one again with a log.  This is
 * where its statically linked code enters the kernel, so here that first attempt asks for the
 * statistics alone (BPF_LOG_STATS, since Linux 5.2), which costs the verifier nothing.  Asking
 * through libbpf would cost the full log of a refused program, whose second attempt it then drops.
 */
static long load_program_with_stats(union bpf_attr *attr, unsigned int size)
{
	struct stats *s = calloc(1, sizeof(*s));
	long fd;

	if (!s)
		return __real_syscall(__NR_bpf, BPF_PROG_LOAD, attr, size);
	attr->log_level = LOG_LEVEL_STATS;
	attr->log_buf = (uint64_t)(uintptr_t)s->text;
	attr->log_size = sizeof(s->text);
	fd = __real_syscall(__NR_bpf, BPF_PROG_LOAD, attr, size);
	attr->log_level = 0;
	attr->log_buf = 0;
	attr->log_size = 0;
	if (fd < 0) {
		int saved_errno = errno;

		free(s);
		errno = saved_errno;
		return fd;
	}
	s->program_fd = (int)fd;
	s->next = loaded_stats;
	loaded_stats = s;
	return fd;
}

long __wrap_syscall(long number, ...)
{
	long a[6];
	va_list arguments;

	va_start(arguments, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(arguments, long);
	va_end(arguments);
	if (want_stats && number == __NR_bpf && (int)a[0] == BPF_PROG_LOAD) {
		union bpf_attr *attr = (union bpf_attr *)a[1];

		if (attr->log_level == 0 && attr->log_buf == 0)
			return load_program_with_stats(attr, (unsigned int)a[2]);
	}
	return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
#endif

/* ---- descriptors and maps ---------------------------------------------------------------------- */

struct pybpf_fd *pybpf_fd_new(int number)
{
	struct pybpf_fd *fd = calloc(1, sizeof(*fd));

	if (fd)
		fd->number = number;
	return fd;
}

void pybpf_fd_close(struct pybpf_fd *fd)
{
	if ((atomic_fetch_or(&fd->users, PYBPF_FD_CLOSED) & ~PYBPF_FD_CLOSED) == 0)
		pybpf_fd_give_back(fd);
}

void pybpf_fd_free(struct pybpf_fd *fd)
{
	pybpf_fd_give_back(fd);
	free(fd);
}

int pybpf_map_create(const struct pybpf_map_options *options)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts,
		    .map_flags = options->flags,
		    .map_extra = options->extra,
		    .numa_node = options->numa_node,
		    .map_ifindex = options->ifindex);

	if (options->inner_map_fd >= 0)
		opts.inner_map_fd = (uint32_t)options->inner_map_fd;
	return bpf_map_create(options->type, options->name, options->key_size, options->value_size,
			      options->max_entries, &opts);
}

void *pybpf_arena_map(int fd, size_t size, uint64_t address)
{
	int flags = MAP_SHARED | (address ? MAP_FIXED_NOREPLACE : 0);
	void *start = mmap((void *)(uintptr_t)address, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	return start == MAP_FAILED ? NULL : start;
}

void pybpf_arena_unmap(void *start, size_t size)
{
	munmap(start, size);
}

/* ---- what programs write -------------------------------------------------------------------------- */

#define PROG_STREAM_READ_BY_FD 37 /* BPF_PROG_STREAM_READ_BY_FD, which older headers lack */

int pybpf_stream_read(int program_fd, uint32_t stream, char *text, uint32_t size)
{
	struct {
		uint64_t text;
		uint32_t size, stream, program_fd, padding; /* which the kernel wants to be 0 */
	} attr = {(uint64_t)(uintptr_t)text, size, stream, (uint32_t)program_fd, 0};
	long taken = syscall(__NR_bpf, PROG_STREAM_READ_BY_FD, &attr, sizeof(attr));

	return taken < 0 ? -errno : (int)taken;
}

/* ---- tracepoints without a mounted tracefs ------------------------------------------------------ */

#ifndef __NR_fsopen
#define __NR_fsopen 430
#define __NR_fsconfig 431
#define __NR_fsmount 432
#endif
#define FSOPEN_CLOEXEC_ 1
#define FSMOUNT_CLOEXEC_ 1
#define FSCONFIG_CMD_CREATE_ 6

int pybpf_tracefs_open(void)
{
	int context = (int)syscall(__NR_fsopen, "tracefs", FSOPEN_CLOEXEC_);
	int mount = -1, err = 0;

	if (context < 0)
		return -errno;
	if (syscall(__NR_fsconfig, context, FSCONFIG_CMD_CREATE_, NULL, NULL, 0) < 0)
		err = -errno;
	else if ((mount = (int)syscall(__NR_fsmount, context, FSMOUNT_CLOEXEC_, 0)) < 0)
		err = -errno;
	close(context);
	return err ? err : mount;
}
