/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Types as C, by libbpf's dumper, in a child process.
 *
 * The dumper believes BTF: types that contain themselves send it into endless recursion, a size that
 * no member fills makes it print gigabytes of padding.  The child can only hurt itself, and has limits.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef __NR_close_range
#define __NR_close_range 436 /* on every architecture; Linux 5.9 */
#endif

/* a kernel's types, 5 MiB, take 0.1 s, 3 MiB of text and 30 MiB of memory */
#define CPU_SECONDS(size) (1 + ((size) >> 18))
#define TEXT_BYTES (64UL << 20)
#define MEMORY_BYTES (512UL << 20)

enum { TEXT, MESSAGES }; /* the child's file descriptors */

static int write_message(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return level == LIBBPF_WARN ? vdprintf(MESSAGES, format, arguments) : 0;
}

static void write_text(void *file, const char *format, va_list arguments)
{
	vfprintf(file, format, arguments);
}

static struct btf *parse(const struct pybpf_btf_data *data, struct btf *base)
{
#if LIBBPF_AT_LEAST(1, 4)
	return btf__new_split(data->start, data->size, base);
#else /* which do not export it, but read files */
	int fd = memfd_create("pybpf BTF", 0);
	char path[32];

	if (write(fd, data->start, data->size) != data->size)
		return NULL;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return btf__parse_raw_split(path, base);
#endif
}

/* 0 or errno.  What it allocates ends with the process. */
static int dump(const struct pybpf_btf_data *data, size_t count, FILE *file)
{
	struct btf *types = NULL;
	struct btf_dump *dumper;
	uint32_t first = 1;

	for (size_t i = 0; i < count; i++) {
		if (types)
			first = btf__type_cnt(types);
		types = parse(&data[i], types);
		if (!types)
			return errno;
	}
	dumper = btf_dump__new(types, write_text, file, NULL);
	if (!dumper)
		return errno;
	for (uint32_t id = first; id < btf__type_cnt(types); id++) {
		int err = btf_dump__dump_type(dumper, id);

		if (err < 0)
			return -err;
	}
	fputc('\0', file);
	return fclose(file) ? errno : 0;
}

static void set_limit(int resource, rlim_t limit)
{
	setrlimit(resource, &(struct rlimit){limit, limit});
}

/* The limit counts what the parent had mapped, too. */
static void limit_memory(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	unsigned long pages;

	if (!file)
		return;
	if (fscanf(file, "%lu", &pages) == 1)
		set_limit(RLIMIT_AS, pages * (unsigned long)sysconf(_SC_PAGESIZE) + MEMORY_BYTES);
	fclose(file);
}

/* Maps, programs and links that the parent closes meanwhile must not live on in the child. */
static void keep_only(int text_fd, int messages_fd)
{
	int text = fcntl(text_fd, F_DUPFD, 3), messages = fcntl(messages_fd, F_DUPFD, 3);

	dup2(text, TEXT);
	dup2(messages, MESSAGES);
	syscall(__NR_close_range, MESSAGES + 1, ~0U, 0);
}

static int run_child(const struct pybpf_btf_data *data, size_t count, int text_fd, int messages_fd)
{
	size_t size = 0;
	sigset_t none;

	for (size_t i = 0; i < count; i++)
		size += data[i].size;
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	keep_only(text_fd, messages_fd);
	limit_memory();
	set_limit(RLIMIT_CPU, CPU_SECONDS(size));
	set_limit(RLIMIT_FSIZE, TEXT_BYTES);
	set_limit(RLIMIT_CORE, 0);
	libbpf_set_print(write_message);
	return dump(data, count, fdopen(TEXT, "w"));
}

/* No signal reaches the child while it has the parent's handlers: they would write to what both share. */
int pybpf_btf_dump(const struct pybpf_btf_data *data, size_t count, int text_fd, int messages_fd)
{
	sigset_t all, old;
	pid_t child;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	child = fork();
	err = errno;
	if (child == 0) {
		err = run_child(data, count, text_fd, messages_fd);
		_exit(err < 256 ? err : EINVAL); /* libbpf has larger numbers than a status holds */
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return child < 0 ? -err : child;
}
