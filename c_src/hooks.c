/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Attaching.  What libbpf attaches is stored where the caller has a place for it already, so that nothing that comes
 * between, such as Ctrl-C in Python, loses it.  What takes no more than a system call is made here
 * from descriptors, for any program of the kernel and also with a libbpf that does not know it yet.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
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

/*
 * The kernel takes a map of ".struct_ops.link" into a link's place only with its value, which libbpf
 * gives it as the first step of updating a link. Here that is none: all zeroes, whose descriptor 0 is
 * no link, so that the second step fails.
 */
int pybpf_fill_struct_ops(const struct bpf_map *map)
{
#if LIBBPF_AT_LEAST(1, 2)
	char none[256] = {0};

	bpf_link__update_map((struct bpf_link *)none, map);
	return 0;
#else
	(void)map;
	return -EOPNOTSUPP; /* it makes no such maps either */
#endif
}

int pybpf_try_kind(const struct pybpf_kind *kind)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts,
		    .expected_attach_type = kind->attach_type,
		    .prog_flags = kind->flags,
		    .attach_btf_id = kind->target);
	const struct bpf_insn program[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = kind->result},
		{.code = BPF_JMP | BPF_EXIT},
	};
	int fd = bpf_prog_load(kind->type, NULL, "GPL", program, 2, &opts);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

int pybpf_program_set_ifindex(struct bpf_program *program, uint32_t ifindex)
{
	bpf_program__set_ifindex(program, ifindex);
	return 0;
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

int pybpf_prog_attach(const struct pybpf_attach_request *request, bool *done)
{
	if (bpf(BPF_PROG_ATTACH, request, sizeof(*request)) < 0)
		return -errno;
	*done = true;
	return 0;
}

int pybpf_prog_detach(const struct pybpf_attach_request *request)
{
	struct pybpf_attach_request attr = {
		.target = request->target,
		.prog_fd = request->prog_fd,
		.attach_type = request->attach_type,
	};

	return bpf(BPF_PROG_DETACH, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

int pybpf_prog_replace(const struct pybpf_attach_request *request, int new_fd)
{
	struct pybpf_attach_request attr = *request;

	attr.prog_fd = (uint32_t)new_fd;
	if (bpf(BPF_PROG_ATTACH, &attr, sizeof(attr)) < 0)
		return -errno;
	return dup3(new_fd, (int)request->prog_fd, O_CLOEXEC) < 0 ? -errno : 0;
}

int pybpf_socket_attach(int socket, int option, int program_fd, bool *done)
{
	if (setsockopt(socket, SOL_SOCKET, option, &program_fd, sizeof(program_fd)))
		return -errno;
	*done = true;
	return 0;
}

int pybpf_prog_query(struct pybpf_query *query)
{
	return bpf(BPF_PROG_QUERY, query, sizeof(*query)) < 0 ? -errno : 0;
}

/* ---- by netlink ---------------------------------------------------------------------------------- */

static bool is_same_file(int one, int other)
{
	struct stat a, b;

	return !fstat(one, &a) && !fstat(other, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Netlink is about the network namespace that the calling thread is in.  To go to another one
 * takes CAP_SYS_ADMIN, which staying does not. */
static int enter_netns(int netns, int *home)
{
	int code = 0;

	*home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (*home < 0)
		return -errno;
	if (!is_same_file(*home, netns) && setns(netns, CLONE_NEWNET)) {
		code = -errno;
		close(*home);
	}
	return code;
}

static int leave_netns(int netns, int home, int code)
{
	if (!is_same_file(home, netns) && setns(home, CLONE_NEWNET))
		code = -errno;
	close(home);
	return code;
}

int pybpf_xdp_attach(struct pybpf_xdp *xdp)
{
	LIBBPF_OPTS(bpf_xdp_attach_opts, opts, .old_prog_fd = xdp->expected_fd);
	int code = bpf_xdp_attach((int)xdp->ifindex, xdp->program_fd, xdp->flags, &opts);

	xdp->attached = code >= 0;
	return code;
}

/* new_fd -1: none */
static int replace_xdp(struct pybpf_xdp *xdp, int new_fd, int old_fd)
{
	LIBBPF_OPTS(bpf_xdp_attach_opts, opts, .old_prog_fd = old_fd);
	uint32_t mode = xdp->flags & XDP_FLAGS_MODES;
	int home, code = enter_netns(xdp->netns, &home);

	if (code < 0)
		return code;
	code = bpf_xdp_attach((int)xdp->ifindex, new_fd, mode, &opts);
	return leave_netns(xdp->netns, home, code);
}

int pybpf_xdp_detach(struct pybpf_xdp *xdp)
{
	return replace_xdp(xdp, -1, xdp->program_fd);
}

int pybpf_xdp_update(struct pybpf_xdp *xdp, int new_fd, int old_fd)
{
	int code = replace_xdp(xdp, new_fd, old_fd ? old_fd : xdp->program_fd);

	if (code >= 0 && dup3(new_fd, xdp->program_fd, O_CLOEXEC) < 0)
		code = -errno;
	return code;
}

int pybpf_xdp_query(uint32_t ifindex, struct pybpf_xdp_programs *found)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);
	int code;

	/* nothing behind: newer releases would ask for features of the device as well */
	opts.sz = offsetof(struct bpf_xdp_query_opts, attach_mode) + sizeof(opts.attach_mode);
	code = bpf_xdp_query((int)ifindex, 0, &opts);
	found->driver = opts.drv_prog_id;
	found->card = opts.hw_prog_id;
	found->generic = opts.skb_prog_id;
	return code;
}

#define TC_HOOK(name, device, where) \
	LIBBPF_OPTS(bpf_tc_hook, name, .ifindex = (int)(device), .attach_point = (where))

int pybpf_clsact_create(uint32_t ifindex)
{
	TC_HOOK(hook, ifindex, BPF_TC_INGRESS | BPF_TC_EGRESS);

	return bpf_tc_hook_create(&hook);
}

int pybpf_clsact_destroy(uint32_t ifindex)
{
	TC_HOOK(hook, ifindex, BPF_TC_INGRESS | BPF_TC_EGRESS);

	return bpf_tc_hook_destroy(&hook);
}

static int set_filter(struct pybpf_tc_filter *filter, int program_fd, bool replace)
{
	TC_HOOK(hook, filter->ifindex, filter->attach_point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = program_fd, .handle = filter->handle,
		    .priority = filter->priority, .flags = replace ? BPF_TC_F_REPLACE : 0);
	int code = bpf_tc_attach(&hook, &opts);

	if (code < 0)
		return code;
	filter->handle = opts.handle;
	filter->priority = opts.priority;
	filter->program_id = opts.prog_id;
	filter->attached = true;
	return 0;
}

int pybpf_tc_attach(struct pybpf_tc_filter *filter)
{
	return set_filter(filter, filter->program_fd, filter->replace);
}

/* Whether the program is still the filter's own. */
static int check_filter(const struct pybpf_tc_filter *filter)
{
	TC_HOOK(hook, filter->ifindex, filter->attach_point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = filter->handle, .priority = filter->priority);
	int code = bpf_tc_query(&hook, &opts);

	if (code < 0)
		return code;
	return opts.prog_id == filter->program_id ? 0 : -EEXIST;
}

static int remove_filter(const struct pybpf_tc_filter *filter)
{
	TC_HOOK(hook, filter->ifindex, filter->attach_point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = filter->handle, .priority = filter->priority);

	return bpf_tc_detach(&hook, &opts);
}

int pybpf_tc_detach(struct pybpf_tc_filter *filter)
{
	int home, code = enter_netns(filter->netns, &home);

	if (code < 0)
		return code;
	code = check_filter(filter);
	if (!code)
		code = remove_filter(filter);
	return leave_netns(filter->netns, home, code);
}

static int check_program(int fd, uint32_t id)
{
	struct bpf_prog_info info = {};
	uint32_t size = sizeof(info);
	int code = bpf_obj_get_info_by_fd(fd, &info, &size);

	if (code < 0)
		return code;
	return info.id == id ? 0 : -EEXIST;
}

int pybpf_tc_update(struct pybpf_tc_filter *filter, int new_fd, int old_fd)
{
	int home, code = old_fd ? check_program(old_fd, filter->program_id) : 0;

	if (code < 0)
		return code;
	code = enter_netns(filter->netns, &home);
	if (code < 0)
		return code;
	code = check_filter(filter);
	if (!code)
		code = set_filter(filter, new_fd, true);
	return leave_netns(filter->netns, home, code);
}
