/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Attaching.  What libbpf attaches is stored where the caller has a place for it already, so that nothing that comes
 * between, such as Ctrl-C in Python, loses it.  What takes no more than a system call is made here
 * from descriptors, for any program of the kernel and also with a libbpf that does not know it yet.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* which older headers lack */
#define BPF_LINK_CREATE_ 28
#define BPF_LINK_UPDATE_ 29
#define BPF_PERF_EVENT_ 41

/* ---- by libbpf ----------------------------------------------------------------------------------- */

static int stored(struct bpf_link *link, struct bpf_link **place)
{
	*place = link;
	if (link)
		return 0;
	return errno ? -errno : -EINVAL;
}

int pybpf_attach(const struct bpf_program *program, struct bpf_link **place)
{
	return stored(bpf_program__attach(program), place);
}

int pybpf_attach_uprobe(const struct bpf_program *program, int pid, const char *path, size_t offset,
			const struct pybpf_uprobe_options *options, struct bpf_link **place)
{
	LIBBPF_OPTS(bpf_uprobe_opts, opts, .retprobe = options->is_return, .bpf_cookie = options->cookie,
		    .ref_ctr_offset = options->counter);

	return stored(bpf_program__attach_uprobe_opts(program, pid, path, offset, &opts), place);
}

int pybpf_attach_usdt(const struct bpf_program *program, int pid, const char *path,
		      const char *provider, const char *name, uint64_t cookie, struct bpf_link **place)
{
	LIBBPF_OPTS(bpf_usdt_opts, opts, .usdt_cookie = cookie);

	return stored(bpf_program__attach_usdt(program, pid, path, provider, name, &opts), place);
}

int pybpf_attach_kprobe(const struct bpf_program *program, const char *function, size_t offset,
			bool retprobe, uint64_t cookie, int mode, struct bpf_link **place)
{
	LIBBPF_OPTS(bpf_kprobe_opts, opts, .offset = offset, .retprobe = retprobe,
		    .bpf_cookie = cookie);

#if PYBPF_HAS_PROBE_MODES
	opts.attach_mode = mode;
#else
	(void)mode;
#endif
	return stored(bpf_program__attach_kprobe_opts(program, function, &opts), place);
}

int pybpf_attach_kprobe_multi(const struct bpf_program *program,
			      const struct pybpf_functions *functions, bool retprobe, bool session,
			      struct bpf_link **place)
{
	LIBBPF_OPTS(bpf_kprobe_multi_opts, opts, .syms = functions->names,
		    .cookies = functions->cookies, .cnt = functions->count, .retprobe = retprobe);

#if PYBPF_HAS_KPROBE_SESSION
	opts.session = session;
#else
	(void)session;
#endif
	return stored(bpf_program__attach_kprobe_multi_opts(program, functions->pattern, &opts),
		      place);
}

int pybpf_attach_ksyscall(const struct bpf_program *program, const char *name, bool retprobe,
			  uint64_t cookie, struct bpf_link **place)
{
	LIBBPF_OPTS(bpf_ksyscall_opts, opts, .retprobe = retprobe, .bpf_cookie = cookie);

	return stored(bpf_program__attach_ksyscall(program, name, &opts), place);
}

int pybpf_attach_freplace(const struct bpf_program *program, int target, const char *function,
			  struct bpf_link **place)
{
	return stored(bpf_program__attach_freplace(program, target, function), place);
}

int pybpf_register(const struct bpf_map *map, struct bpf_link **place)
{
	return stored(bpf_map__attach_struct_ops(map), place);
}

/* ---- by the kernel ------------------------------------------------------------------------------- */

static long bpf(int command, const void *attr, uint32_t size)
{
	return syscall(__NR_bpf, command, attr, size);
}

int pybpf_link_create(const struct pybpf_link_request *request, int *place)
{
	long fd = bpf(BPF_LINK_CREATE_, request, sizeof(*request));

	if (fd < 0)
		return -errno;
	*place = (int)fd;
	return 0;
}

int pybpf_raw_tracepoint_open(const char *name, int program, uint64_t cookie, int *place)
{
	struct {
		uint64_t name;
		uint32_t program, padding;
		uint64_t cookie;
	} attr = {(uint64_t)(uintptr_t)name, (uint32_t)program, 0, cookie};
	long fd = bpf(BPF_RAW_TRACEPOINT_OPEN, &attr, sizeof(attr));

	if (fd < 0)
		return -errno;
	*place = (int)fd;
	return 0;
}

int pybpf_perf_open(const struct pybpf_perf_request *request, int *place)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.type = request->type,
		.config = request->config,
		.sample_period = request->sample,
		.freq = request->is_frequency,
		.inherit = request->inherit,
		.disabled = true,
	};
	long fd = syscall(__NR_perf_event_open, &attr, request->pid, request->cpu, -1,
			  PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		return -errno;
	*place = (int)fd;
	return 0;
}

int pybpf_perf_attach(int event, int program, uint64_t cookie, int *link)
{
	struct pybpf_link_request request = {
		.prog_fd = (uint32_t)program,
		.target = (uint32_t)event,
		.attach_type = BPF_PERF_EVENT_,
		.perf_event.cookie = cookie,
	};
	int err = pybpf_link_create(&request, link);

	if (err == -EINVAL && !cookie) /* before Linux 5.15 there are no such links */
		err = ioctl(event, PERF_EVENT_IOC_SET_BPF, program) < 0 ? -errno : 0;
	if (!err && ioctl(event, PERF_EVENT_IOC_ENABLE, 0) < 0)
		err = -errno;
	return err;
}

int pybpf_link_update(int link_fd, int new_fd, int old_fd, uint32_t flags)
{
	struct {
		uint32_t link_fd, new_fd, flags, old_fd;
	} attr = {(uint32_t)link_fd, (uint32_t)new_fd, flags, (uint32_t)old_fd};

	return bpf(BPF_LINK_UPDATE_, &attr, sizeof(attr)) < 0 ? -errno : 0;
}
