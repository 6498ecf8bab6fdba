// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Iterators: over tasks, maps, the elements of a map and cgroups, as text and as records. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct task_record {
	__u32 pid;
	__u32 tgid;
	char comm[16];
};

struct entry {
	__u64 key;
	__u64 value;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u64);
} numbers SEC(".maps");

/* more elements than the kernel goes over in one read */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2500000);
	__type(key, __u32);
	__type(value, __u8);
} flags SEC(".maps");

__u32 postponements; /* how often `postponed` asks for the same object again */
__u32 runs;          /* of any program that counts them */
__u32 pieces;        /* how many of them `huge` and `cgroups` write for one object */
char piece[4096];
struct entry last; /* of `element_records`; a global, so that the object's types have it */

SEC("iter/task")
int tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (task)
		BPF_SEQ_PRINTF(ctx->meta->seq, "%d %d %s\n", task->pid, task->tgid, task->comm);
	return 0;
}

SEC("iter/task")
int task_records(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_record record = {};

	if (!task)
		return 0;
	record.pid = task->pid;
	record.tgid = task->tgid;
	bpf_probe_read_kernel_str(record.comm, sizeof(record.comm), task->comm);
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

SEC("iter/task")
int postponed(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (!task)
		return 0;
	runs++;
	if (postponements) {
		postponements--;
		return 1;
	}
	BPF_SEQ_PRINTF(ctx->meta->seq, "%d\n", task->pid);
	return 0;
}

SEC("iter/task")
int silent(struct bpf_iter__task *ctx)
{
	runs++;
	return 0;
}

SEC("iter/bpf_map")
int maps(struct bpf_iter__bpf_map *ctx)
{
	struct bpf_map *map = ctx->map;

	if (map)
		BPF_SEQ_PRINTF(ctx->meta->seq, "%u\n", map->id);
	return 0;
}

SEC("iter/bpf_map_elem")
int elements(struct bpf_iter__bpf_map_elem *ctx)
{
	__u64 *key = ctx->key, *value = ctx->value;

	if (key && value)
		BPF_SEQ_PRINTF(ctx->meta->seq, "%llu is worth %llu\n", *key, *value);
	return 0;
}

SEC("iter/bpf_map_elem")
int element_records(struct bpf_iter__bpf_map_elem *ctx)
{
	__u64 *key = ctx->key, *value = ctx->value;

	if (!key || !value)
		return 0;
	last.key = *key;
	last.value = *value;
	bpf_seq_write(ctx->meta->seq, &last, sizeof(last));
	return 0;
}

/* one line, of 4096 bytes for each element */
SEC("iter/bpf_map_elem")
int endless_line(struct bpf_iter__bpf_map_elem *ctx)
{
	if (ctx->key)
		bpf_seq_write(ctx->meta->seq, piece, sizeof(piece));
	return 0;
}

static void write_pieces(struct seq_file *seq)
{
	for (int i = 0; i < 64 && i < pieces; i++)
		bpf_seq_write(seq, piece, sizeof(piece));
}

SEC("iter/bpf_map_elem")
int huge(struct bpf_iter__bpf_map_elem *ctx)
{
	if (ctx->key)
		write_pieces(ctx->meta->seq);
	return 0;
}

/* the numbers of the elements that are not zero */
SEC("iter/bpf_map_elem")
int raised_flags(struct bpf_iter__bpf_map_elem *ctx)
{
	__u32 *key = ctx->key;
	__u8 *value = ctx->value;

	if (key && value && *value)
		BPF_SEQ_PRINTF(ctx->meta->seq, "%u\n", *key);
	return 0;
}

/* Linux 6.1 */
SEC("?iter/cgroup")
int cgroups(struct bpf_iter__cgroup *ctx)
{
	struct cgroup *cgroup = ctx->cgroup;

	if (!cgroup)
		return 0;
	write_pieces(ctx->meta->seq);
	BPF_SEQ_PRINTF(ctx->meta->seq, "%llu\n", cgroup->kn->id);
	return 0;
}

SEC("raw_tp")
int no_iterator(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
