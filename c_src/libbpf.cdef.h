/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What Python calls, as cffi reads it; the C compiler checks every line against the real headers.
 * Enumerations are declared as int: values newer than these headers pass through.
 */

/* <linux/bpf.h>: only the fields that pybpf reads */
struct bpf_map_info {
	uint32_t type, id, key_size, value_size, max_entries, map_flags;
	char name[16];
	uint32_t ifindex, btf_vmlinux_value_type_id, btf_id, btf_key_type_id, btf_value_type_id;
	uint64_t map_extra;
	...;
};
struct bpf_prog_info {
	uint32_t type, id;
	uint8_t tag[8];
	uint32_t jited_prog_len, xlated_prog_len;
	uint64_t jited_prog_insns, xlated_prog_insns;
	uint64_t load_time;
	uint32_t created_by_uid, nr_map_ids;
	uint64_t map_ids;
	char name[16];
	uint32_t ifindex;
	uint32_t nr_jited_ksyms, nr_jited_func_lens;
	uint64_t jited_ksyms, jited_func_lens;
	uint32_t btf_id, func_info_rec_size;
	uint64_t func_info;
	uint32_t nr_func_info, nr_line_info;
	uint64_t line_info, jited_line_info;
	uint32_t nr_jited_line_info, line_info_rec_size, jited_line_info_rec_size;
	uint64_t run_time_ns, run_cnt, recursion_misses;
	uint32_t verified_insns;
	...;
};
struct bpf_link_info {
	uint32_t type, id, prog_id;
	...;
};

/* <linux/btf.h> */
struct btf_type {
	uint32_t info;
	uint32_t type;
	...;
};

/* <bpf/libbpf.h> */
struct bpf_object;
struct bpf_program;
struct bpf_map;
struct bpf_link;
struct bpf_insn;
struct btf;

uint32_t libbpf_major_version(void);
uint32_t libbpf_minor_version(void);
const char *libbpf_bpf_attach_type_str(int);
const char *libbpf_bpf_link_type_str(int);
const char *libbpf_bpf_map_type_str(int);
const char *libbpf_bpf_prog_type_str(int);
int libbpf_num_possible_cpus(void);

void bpf_object__close(struct bpf_object *);
const char *bpf_object__name(const struct bpf_object *);
struct btf *bpf_object__btf(const struct bpf_object *);
struct bpf_program *bpf_object__next_program(const struct bpf_object *, struct bpf_program *);
struct bpf_map *bpf_object__next_map(const struct bpf_object *, const struct bpf_map *);
const void *btf__raw_data(const struct btf *, uint32_t *);
const struct btf_type *btf__type_by_id(const struct btf *, uint32_t);

const char *bpf_program__name(const struct bpf_program *);
const char *bpf_program__section_name(const struct bpf_program *);
bool bpf_program__autoload(const struct bpf_program *);
int bpf_program__set_autoload(struct bpf_program *, bool);
bool bpf_program__autoattach(const struct bpf_program *);
void bpf_program__set_autoattach(struct bpf_program *, bool);
int bpf_program__type(const struct bpf_program *);
int bpf_program__set_type(struct bpf_program *, int);
int bpf_program__expected_attach_type(const struct bpf_program *);
int bpf_program__set_expected_attach_type(struct bpf_program *, int);
uint32_t bpf_program__log_level(const struct bpf_program *);
int bpf_program__set_log_level(struct bpf_program *, uint32_t);
uint32_t bpf_program__flags(const struct bpf_program *);
int bpf_program__set_flags(struct bpf_program *, uint32_t);
int bpf_program__set_attach_target(struct bpf_program *, int, const char *);
const struct bpf_insn *bpf_program__insns(const struct bpf_program *);
size_t bpf_program__insn_cnt(const struct bpf_program *);
int bpf_program__fd(const struct bpf_program *);

const char *bpf_map__name(const struct bpf_map *);
int bpf_map__fd(const struct bpf_map *);
bool bpf_map__is_internal(const struct bpf_map *);
bool bpf_map__autocreate(const struct bpf_map *);
int bpf_map__set_autocreate(struct bpf_map *, bool);
int bpf_map__type(const struct bpf_map *);
int bpf_map__set_type(struct bpf_map *, int);
uint32_t bpf_map__max_entries(const struct bpf_map *);
int bpf_map__set_max_entries(struct bpf_map *, uint32_t);
uint32_t bpf_map__map_flags(const struct bpf_map *);
int bpf_map__set_map_flags(struct bpf_map *, uint32_t);
uint32_t bpf_map__numa_node(const struct bpf_map *);
int bpf_map__set_numa_node(struct bpf_map *, uint32_t);
uint32_t bpf_map__key_size(const struct bpf_map *);
int bpf_map__set_key_size(struct bpf_map *, uint32_t);
uint32_t bpf_map__value_size(const struct bpf_map *);
int bpf_map__set_value_size(struct bpf_map *, uint32_t);
uint32_t bpf_map__btf_key_type_id(const struct bpf_map *);
uint32_t bpf_map__btf_value_type_id(const struct bpf_map *);
uint32_t bpf_map__ifindex(const struct bpf_map *);
int bpf_map__set_ifindex(struct bpf_map *, uint32_t);
uint64_t bpf_map__map_extra(const struct bpf_map *);
int bpf_map__set_map_extra(struct bpf_map *, uint64_t);
int bpf_map__set_inner_map_fd(struct bpf_map *, int);
void *bpf_map__initial_value(const struct bpf_map *, size_t *);
int bpf_map__set_pin_path(struct bpf_map *, const char *);
const char *bpf_map__pin_path(const struct bpf_map *);
int bpf_map__reuse_fd(struct bpf_map *, int);

int libbpf_find_vmlinux_btf_id(const char *, int);

int bpf_link__fd(const struct bpf_link *);
void bpf_link__disconnect(struct bpf_link *);
int bpf_link__destroy(struct bpf_link *);

struct user_ring_buffer;
struct user_ring_buffer_opts;
struct user_ring_buffer *user_ring_buffer__new(int, const struct user_ring_buffer_opts *);
void user_ring_buffer__free(struct user_ring_buffer *);

/* <bpf/bpf.h> */
int bpf_map_lookup_elem_flags(int, const void *, void *, uint64_t);
int bpf_map_update_elem(int, const void *, const void *, uint64_t);
int bpf_map_delete_elem_flags(int, const void *, uint64_t);
int bpf_map_get_next_key(int, const void *, void *);
int bpf_map_freeze(int);
int bpf_obj_pin(int, const char *);
int bpf_obj_get(const char *);
int bpf_map_get_fd_by_id(uint32_t);
int bpf_prog_get_fd_by_id(uint32_t);
int bpf_prog_get_next_id(uint32_t, uint32_t *);
int bpf_map_get_next_id(uint32_t, uint32_t *);
int bpf_link_get_next_id(uint32_t, uint32_t *);
int bpf_enable_stats(int);
int bpf_obj_get_info_by_fd(int, void *, uint32_t *);
int bpf_iter_create(int);
int bpf_link_detach(int);
int bpf_link_get_fd_by_id(uint32_t);

/* shim.h */
void pybpf_log_install(void);
void pybpf_log_level(int);
const char *pybpf_log_text(size_t *);
void pybpf_log_clear(void);

struct pybpf_open_options {
	const char *name;
	const char *pin_root;
	const char *kconfig;
	const char *btf;
	const char *token;
	uint32_t log_level;
};
int pybpf_open(const void *, size_t, const struct pybpf_open_options *, struct bpf_object **);
int pybpf_load(struct bpf_object *);
int pybpf_map_variables(const struct bpf_map *);
const char *pybpf_load_stats(int);
#define PYBPF_HAS_LOAD_STATS ...
void pybpf_load_stats_clear(void);

int pybpf_program_set_ifindex(struct bpf_program *, uint32_t);
struct pybpf_map_options {
	const char *name;
	uint32_t type, key_size, value_size, max_entries, flags, numa_node, ifindex;
	uint64_t extra;
	int inner_map_fd;
};
int pybpf_map_create(const struct pybpf_map_options *);
void *pybpf_arena_map(int fd, size_t size, uint64_t address);
void pybpf_arena_unmap(void *start, size_t size);

#define PYBPF_CLOSED ...
struct pybpf_fd;
struct pybpf_fd *pybpf_fd_new(int);
void pybpf_fd_close(struct pybpf_fd *);
void pybpf_fd_free(struct pybpf_fd *);
#define BPF_MAP_LOOKUP_ELEM ...
#define BPF_MAP_UPDATE_ELEM ...
#define BPF_MAP_DELETE_ELEM ...
#define BPF_MAP_LOOKUP_AND_DELETE_ELEM ...
int pybpf_map_element(struct pybpf_fd *, int, const void *, const void *, uint64_t);
int pybpf_map_lookup_many(struct pybpf_fd *, const char *, size_t, char *, size_t, char *, size_t,
			  uint64_t);
int pybpf_map_update_many(struct pybpf_fd *, const char *, size_t, const char *, size_t, uint32_t,
			  uint64_t, uint32_t *);
int pybpf_map_delete_many(struct pybpf_fd *, const char *, size_t, uint32_t, uint32_t *);
int pybpf_map_read_batch(struct pybpf_fd *, bool, void *, void *, char *, char *, uint32_t *,
			 uint64_t);
struct pybpf_walk;
struct pybpf_walk *pybpf_walk_new(struct pybpf_fd *, size_t, uint32_t, uint64_t);
int pybpf_walk_next(struct pybpf_walk *, char *, char *, size_t, int);
void pybpf_walk_free(struct pybpf_walk *);

struct pybpf_iter_info {
	uint32_t type, id, prog_id;
	uint64_t target_name;
	uint32_t target_name_len, map_id;
	uint32_t tid, pid;
};
int pybpf_stream_read(int, uint32_t, char *, uint32_t);

int pybpf_attach(const struct bpf_program *, struct bpf_link **);
int pybpf_attach_kprobe(const struct bpf_program *, const char *, size_t, bool, uint64_t, int,
			struct bpf_link **);
#define PYBPF_HAS_PROBE_MODES ...
struct pybpf_functions {
	const char *pattern;
	const char **names;
	const unsigned long long *cookies;
	size_t count;
};
int pybpf_attach_kprobe_multi(const struct bpf_program *, const struct pybpf_functions *, bool, bool,
			      struct bpf_link **);
#define PYBPF_HAS_KPROBE_SESSION ...
int pybpf_attach_ksyscall(const struct bpf_program *, const char *, bool, uint64_t,
			  struct bpf_link **);
int pybpf_attach_freplace(const struct bpf_program *, int, const char *, struct bpf_link **);
int pybpf_register(const struct bpf_map *, struct bpf_link **);
int pybpf_fill_struct_ops(const struct bpf_map *);
struct pybpf_uprobe_options {
	uint64_t cookie;
	size_t counter;
	bool is_return;
};
int pybpf_attach_uprobe(const struct bpf_program *, int, const char *, size_t,
			const struct pybpf_uprobe_options *, struct bpf_link **);
int pybpf_attach_usdt(const struct bpf_program *, int, const char *, const char *, const char *,
		      uint64_t, struct bpf_link **);
struct pybpf_link_request {
	uint32_t prog_fd, target, attach_type, flags;
	union {
		uint32_t target_btf_id;
		struct {
			uint64_t parameters;
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
			uint32_t relative;
			uint64_t expected_revision;
		} order;
		struct {
			uint64_t path, offsets, counters, cookies;
			uint32_t count, flags, pid;
		} uprobe_multi;
	};
};
int pybpf_link_create(const struct pybpf_link_request *, int *);
int pybpf_raw_tracepoint_open(const char *, int, uint64_t, int *);
struct pybpf_perf_request {
	uint32_t type;
	uint64_t config, sample;
	bool is_frequency, inherit;
	int pid, cpu;
};
int pybpf_perf_open(const struct pybpf_perf_request *, int *);
int pybpf_perf_attach(int, int, uint64_t, int *);
struct pybpf_kind {
	uint32_t type, attach_type, flags, target;
	int result;
};
int pybpf_try_kind(const struct pybpf_kind *);
int pybpf_link_update(int, int, int, uint32_t);
struct pybpf_attach_request {
	uint32_t target, prog_fd, attach_type, flags, replaced, relative;
	uint64_t expected_revision;
};
int pybpf_prog_attach(const struct pybpf_attach_request *, bool *);
int pybpf_prog_detach(const struct pybpf_attach_request *);
int pybpf_prog_replace(const struct pybpf_attach_request *, int);
int pybpf_socket_attach(int, int, int, bool *);
struct pybpf_query {
	uint32_t target, attach_type, query_flags, attach_flags;
	uint64_t prog_ids;
	uint32_t count, padding;
	uint64_t prog_attach_flags, link_ids, link_attach_flags, revision;
};
int pybpf_prog_query(struct pybpf_query *);
struct pybpf_tc_filter {
	int netns, program_fd;
	uint32_t ifindex, attach_point, priority, handle, program_id;
	bool replace, attached;
};
int pybpf_tc_attach(struct pybpf_tc_filter *);
int pybpf_tc_detach(struct pybpf_tc_filter *);
int pybpf_tc_update(struct pybpf_tc_filter *, int, int);
struct pybpf_xdp {
	int netns, program_fd, expected_fd;
	uint32_t ifindex, flags;
	bool attached;
};
int pybpf_xdp_attach(struct pybpf_xdp *);
int pybpf_xdp_detach(struct pybpf_xdp *);
int pybpf_xdp_update(struct pybpf_xdp *, int, int);
struct pybpf_xdp_programs {
	uint32_t driver, card, generic;
};
int pybpf_xdp_query(uint32_t, struct pybpf_xdp_programs *);
int pybpf_clsact_create(uint32_t);
int pybpf_clsact_destroy(uint32_t);

int pybpf_tracefs_open(void);

struct pybpf_place {
	void *memory;
};
int pybpf_sample_put(struct user_ring_buffer *, uint32_t, const void *);
int pybpf_place_take(struct user_ring_buffer *, uint32_t, struct pybpf_place *);
bool pybpf_place_submit(struct user_ring_buffer *, struct pybpf_place *, uint32_t, const void *);
bool pybpf_place_discard(struct user_ring_buffer *, struct pybpf_place *);

/* the kernel's BTF by id, and types as C */
struct bpf_btf_info {
	uint64_t btf;
	uint32_t btf_size, id;
	uint64_t name;
	uint32_t name_len, kernel_btf;
	...;
};
int bpf_btf_get_fd_by_id(uint32_t);

struct pybpf_btf_data {
	const void *start;
	uint32_t size;
};
int pybpf_btf_dump(const struct pybpf_btf_data *, size_t, int, int);
