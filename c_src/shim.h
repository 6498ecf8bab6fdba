/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What cffi cannot say or should not do: the va_list print callback, option structs whose fields
 * depend on the libbpf version, and a few system calls that neither Python nor libbpf wraps.
 *
 * Functions that return int return 0 or a count, or a negative errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <bpf/libbpf_version.h>

#define LIBBPF_AT_LEAST(major, minor) \
	(LIBBPF_MAJOR_VERSION > (major) || \
	 (LIBBPF_MAJOR_VERSION == (major) && LIBBPF_MINOR_VERSION >= (minor)))

#include "shared_fd.h"

/* libbpf's messages, kept for the calling thread until it clears them.  Each begins with two 32-bit
 * numbers, its enum libbpf_print_level and its length. */
void pybpf_log_install(void);
void pybpf_log_level(int level);
const char *pybpf_log_text(size_t *size);
void pybpf_log_clear(void);

struct pybpf_open_options {
	const char *name;
	const char *pin_root;
	const char *kconfig;
	const char *btf;
	const char *token;
	uint32_t log_level;
};

/* token needs libbpf 1.4 and is disregarded before. */
int pybpf_open(const void *data, size_t size, const struct pybpf_open_options *options,
	       struct bpf_object **object);

/* bpf_object__load() that also keeps, for the calling thread, the verifier's statistics of every
 * program it loads, where PYBPF_HAS_LOAD_STATS: pybpf_load_stats() gives them by program fd, NULL
 * where there are none. */
int pybpf_load(struct bpf_object *object);
int pybpf_map_variables(const struct bpf_map *map);
const char *pybpf_load_stats(int program_fd);
#ifdef PYBPF_WRAP_SYSCALL
#define PYBPF_HAS_LOAD_STATS 1
#else
#define PYBPF_HAS_LOAD_STATS 0
#endif
void pybpf_load_stats_clear(void);

/* The device that a program is loaded for. */
int pybpf_program_set_ifindex(struct bpf_program *program, uint32_t ifindex);

struct pybpf_map_options {
	const char *name;
	uint32_t type, key_size, value_size, max_entries, flags, numa_node, ifindex;
	uint64_t extra;
	int inner_map_fd;
};

int pybpf_map_create(const struct pybpf_map_options *options);

/* Map an arena, where `address` is not 0 there; NULL with errno. */
void *pybpf_arena_map(int fd, size_t size, uint64_t address);
void pybpf_arena_unmap(void *start, size_t size);

/* A tracefs that is mounted nowhere, by a descriptor of its root. */
int pybpf_tracefs_open(void);

/* What the kernel tells of a link that stands for an iterator program, struct bpf_link_info. */
struct pybpf_iter_info {
	uint32_t type, id, prog_id;
	uint64_t target_name;
	uint32_t target_name_len, map_id;
	uint32_t tid, pid;
};

/* hooks.c: attach; 0 and the link stored, or a negative errno. */
int pybpf_attach(const struct bpf_program *program, struct bpf_link **place);
/* mode: an enum probe_attach_mode, 0 to let libbpf choose; disregarded unless
 * PYBPF_HAS_PROBE_MODES. */
int pybpf_attach_kprobe(const struct bpf_program *program, const char *function, size_t offset,
			bool retprobe, uint64_t cookie, int mode, struct bpf_link **place);
#define PYBPF_HAS_PROBE_MODES LIBBPF_AT_LEAST(1, 2)

/* Those that match the pattern; or, where that is NULL, `count` by name, cookies NULL or as many. */
struct pybpf_functions {
	const char *pattern;
	const char **names;
	const __u64 *cookies;
	size_t count;
};

/* session is disregarded unless PYBPF_HAS_KPROBE_SESSION. */
int pybpf_attach_kprobe_multi(const struct bpf_program *program,
			      const struct pybpf_functions *functions, bool retprobe, bool session,
			      struct bpf_link **place);
#define PYBPF_HAS_KPROBE_SESSION LIBBPF_AT_LEAST(1, 5)
int pybpf_attach_ksyscall(const struct bpf_program *program, const char *name, bool retprobe,
			  uint64_t cookie, struct bpf_link **place);
/* Replace a function of the program behind the descriptor. */
int pybpf_attach_freplace(const struct bpf_program *program, int target, const char *function,
			  struct bpf_link **place);
int pybpf_register(const struct bpf_map *map, struct bpf_link **place);
int pybpf_fill_struct_ops(const struct bpf_map *map);

/* Probes in programs of user space; pid -1 is all processes, offsets are those in the file. */
struct pybpf_uprobe_options {
	uint64_t cookie;
	size_t counter; /* of a 16-bit number that the kernel counts up while it is attached; or 0 */
	bool is_return;
};

int pybpf_attach_uprobe(const struct bpf_program *program, int pid, const char *path, size_t offset,
			const struct pybpf_uprobe_options *options, struct bpf_link **place);
int pybpf_attach_usdt(const struct bpf_program *program, int pid, const char *path,
		      const char *provider, const char *name, uint64_t cookie, struct bpf_link **place);

/* What BPF_LINK_CREATE takes, with what belongs to each kind of link; headers may know less. */
struct pybpf_link_request {
	uint32_t prog_fd; /* or a struct_ops map's */
	uint32_t target;  /* descriptor or interface */
	uint32_t attach_type, flags;
	union {
		uint32_t target_btf_id;
		struct {
			uint64_t parameters; /* the address of a union bpf_iter_link_info */
			uint32_t size;
		} iter;
		struct {
			uint64_t cookie;
		} perf_event;
		struct {
			uint32_t target_btf_id;
			uint64_t cookie;
		} tracing;
		struct {
			uint32_t pf, hook;
			int32_t priority;
			uint32_t flags;
		} netfilter;
		struct {
			uint32_t relative; /* a descriptor or an id */
			uint64_t expected_revision;
		} order; /* of tcx, netkit and cgroup */
		struct {
			uint64_t path, offsets, counters, cookies; /* addresses */
			uint32_t count, flags, pid;
		} uprobe_multi;
	};
};

int pybpf_link_create(const struct pybpf_link_request *request, int *place);

/* A raw tracepoint by name; or, where that is NULL, what the program was loaded for. */
int pybpf_raw_tracepoint_open(const char *name, int program, uint64_t cookie, int *place);

/* A perf event, which counts nothing yet: of a process (or -1) on a CPU (or -1).  `sample` is how
 * often to interrupt, by time or by events. */
struct pybpf_perf_request {
	uint32_t type;
	uint64_t config, sample;
	bool is_frequency, inherit;
	int pid, cpu;
};

int pybpf_perf_open(const struct pybpf_perf_request *request, int *place);

/* Have the event run the program, and begin; by a link where the kernel has them for events. */
int pybpf_perf_attach(int event, int program, uint64_t cookie, int *link);
/* What BPF_PROG_ATTACH takes, which makes no link, and of it the first three for BPF_PROG_DETACH. */
struct pybpf_attach_request {
	uint32_t target; /* descriptor or interface */
	uint32_t prog_fd;
	uint32_t attach_type, flags;
	uint32_t replaced;
	uint32_t relative; /* a descriptor or an id */
	uint64_t expected_revision;
};

/* Attach; `done` tells from then on that it is. */
int pybpf_prog_attach(const struct pybpf_attach_request *request, bool *done);
int pybpf_prog_detach(const struct pybpf_attach_request *request);

/* Attach another program in its place: request->prog_fd becomes another descriptor of that, under
 * the same number. */
int pybpf_prog_replace(const struct pybpf_attach_request *request, int new_fd);

/* Attach a program by an option of a socket; `done` as above. */
int pybpf_socket_attach(int socket, int option, int program_fd, bool *done);

/* What BPF_PROG_QUERY takes and gives. */
struct pybpf_query {
	uint32_t target; /* descriptor or interface */
	uint32_t attach_type, query_flags, attach_flags;
	uint64_t prog_ids; /* the address of ... */
	uint32_t count;    /* ... that many */
	uint32_t padding;
	uint64_t prog_attach_flags, link_ids, link_attach_flags;
	uint64_t revision;
};

int pybpf_prog_query(struct pybpf_query *query);

/* Have the kernel take, and give back, the least program of a kind: one that returns `result`. */
struct pybpf_kind {
	uint32_t type, attach_type, flags, target; /* the BTF id of what is traced */
	int result;
};

int pybpf_try_kind(const struct pybpf_kind *kind);

/* Put another program, or struct_ops map, in the place of a link's. */
int pybpf_link_update(int link_fd, int new_fd, int old_fd, uint32_t flags);

/* What is attached to devices by netlink, and so has no link: what C was asked for and, once it is
 * attached, what ends it.  netns is the network namespace of the device; attaching is done by a
 * thread that is in it, detaching by any. */
struct pybpf_tc_filter {
	int netns, program_fd;
	uint32_t ifindex, attach_point; /* enum bpf_tc_attach_point */
	uint32_t priority, handle;      /* 0: the kernel chooses */
	uint32_t program_id;
	bool replace;
	bool attached;
};

int pybpf_tc_attach(struct pybpf_tc_filter *filter);
int pybpf_tc_detach(struct pybpf_tc_filter *filter);
/* Put another program in the place of the filter's own, which old_fd is unless it is 0. */
int pybpf_tc_update(struct pybpf_tc_filter *filter, int new_fd, int old_fd);

/* expected_fd: the program that is to be replaced, 0 for any; flags: XDP_FLAGS_*.  Updating has
 * program_fd be another descriptor of the new program, under the same number. */
struct pybpf_xdp {
	int netns, program_fd, expected_fd;
	uint32_t ifindex, flags;
	bool attached;
};

int pybpf_xdp_attach(struct pybpf_xdp *xdp);
int pybpf_xdp_detach(struct pybpf_xdp *xdp);
int pybpf_xdp_update(struct pybpf_xdp *xdp, int new_fd, int old_fd);

/* The ids of a device's XDP programs, 0 where there is none. */
struct pybpf_xdp_programs {
	uint32_t driver, card, generic;
};

int pybpf_xdp_query(uint32_t ifindex, struct pybpf_xdp_programs *found);

/* The qdisc clsact of a device of this thread's network namespace. */
int pybpf_clsact_create(uint32_t ifindex);
int pybpf_clsact_destroy(uint32_t ifindex);

/* Take from what a program has written to a stream (1: stdout, 2: stderr) up to `size` bytes. */
int pybpf_stream_read(int program_fd, uint32_t stream, char *text, uint32_t size);

/* A descriptor of its own; after pybpf_fd_close() every call with it gives -PYBPF_CLOSED. */
struct pybpf_fd *pybpf_fd_new(int number);
void pybpf_fd_close(struct pybpf_fd *fd);
void pybpf_fd_free(struct pybpf_fd *fd);

/* Elements of a map: one, and many, whose keys and values stand one after the other. */
int pybpf_map_element(struct pybpf_fd *map, int command, const void *key, const void *value,
		      uint64_t flags);

int pybpf_map_lookup_many(struct pybpf_fd *map, const char *keys, size_t key_size, char *values,
			  size_t value_size, char *found, size_t count, uint64_t flags);
int pybpf_map_update_many(struct pybpf_fd *map, const char *keys, size_t key_size, const char *values,
			  size_t value_size, uint32_t count, uint64_t flags, uint32_t *done);
int pybpf_map_delete_many(struct pybpf_fd *map, const char *keys, size_t key_size, uint32_t count,
			  uint32_t *removed);
int pybpf_map_read_batch(struct pybpf_fd *map, bool remove, void *from, void *to, char *keys,
			 char *values, uint32_t *count, uint64_t flags);

/* All keys of a map, about `expected`, each once, by asking for one after the other; the map must
 * outlive the walk. */
struct pybpf_walk;

struct pybpf_walk *pybpf_walk_new(struct pybpf_fd *map, size_t key_size, uint32_t expected,
				  uint64_t in_vain_limit);
int pybpf_walk_next(struct pybpf_walk *walk, char *keys, char *values, size_t value_size, int capacity);
void pybpf_walk_free(struct pybpf_walk *walk);

/* user_ring.c: samples of user ring buffers, put there at once, or into a place that is taken first
 * and then given back by one of the last two, which tell whether it was taken.  -ENOSPC where there
 * is no room.  Putting and taking are not for two threads at once. */
struct pybpf_place {
	void *memory;
};

int pybpf_sample_put(struct user_ring_buffer *ring, uint32_t size, const void *data);
int pybpf_place_take(struct user_ring_buffer *ring, uint32_t size, struct pybpf_place *place);
bool pybpf_place_submit(struct user_ring_buffer *ring, struct pybpf_place *place, uint32_t size,
			const void *data);
bool pybpf_place_discard(struct user_ring_buffer *ring, struct pybpf_place *place);

/* btf_dump.c: starts a child process that writes the types of the last of ``count`` BTFs, each
 * continuing the one before it, as C to text_fd, with a NUL at the end once it is whole, and
 * libbpf's warnings to messages_fd; its exit status is 0 or an errno.  Returns its process id,
 * which is the caller's to wait for. */
struct pybpf_btf_data {
	const void *start;
	uint32_t size;
};

int pybpf_btf_dump(const struct pybpf_btf_data *data, size_t count, int text_fd, int messages_fd);
