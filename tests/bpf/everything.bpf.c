// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Maps of the common kinds, variables of every size, and programs that write to them on test_run. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct point {
	__u8 x;
	__u32 y; /* after three bytes of padding */
};

struct place { /* a key, and therefore without padding */
	__u32 x;
	__u32 y;
};

struct reading {
	__u64 sequence;
	__s32 value;
	char label[12];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, struct place);
	__type(value, struct reading);
} points SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __s32);
} levels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} per_cpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 4);
	__uint(value_size, 4);
} queue SEC(".maps");

struct locked {
	struct bpf_spin_lock lock;
	__u32 value;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locked);
} guarded SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
	__type(value, struct reading);
} readings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} untyped SEC(".maps");

const volatile __u8 step8 = 1;
const volatile __u16 step16 = 2;
const volatile __u32 step32 = 3;
const volatile __u64 step64 = 4;
const volatile __s32 negative = -5;
const volatile bool enabled = true;
const volatile char label[12] = "none";

__u64 total = 100;
struct point corner = {1, 2};
__u32 limits[3] = {10, 20, 30};

__u64 runs;
__u32 custom SEC(".data.custom") = 7;

struct input {
	__u32 count;
};

/* adds the steps to total, counts the run, and writes input->count readings to both rings */
SEC("raw_tp")
int run_all(struct input *input)
{
	__u32 zero = 0, key = 1, *slot;
	__u64 one = 1;
	int i;

	runs++;
	if (enabled)
		total += (__u64)step8 + step16 + step32 + step64 + (__s64)negative;
	bpf_map_update_elem(&counts, &key, &one, BPF_ANY);
	slot = bpf_map_lookup_elem(&per_cpu, &zero);
	if (slot)
		*slot += 1;
	for (i = 0; i < 64 && i < input->count; i++) {
		struct reading reading = {.sequence = i, .value = -i};

		for (int k = 0; k < sizeof(label); k++)
			reading.label[k] = label[k];
		bpf_ringbuf_output(&readings, &reading, sizeof(reading), 0);
		bpf_ringbuf_output(&untyped, &reading.sequence, sizeof(reading.sequence), 0);
	}
	return custom;
}

SEC("tp/sched/sched_process_exec")
int on_exec(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 parent = BPF_CORE_READ(task, real_parent, tgid);
	__u64 one = 1;

	bpf_map_update_elem(&counts, &parent, &one, BPF_ANY);
	return 0;
}

SEC("tc")
int set_mark(struct __sk_buff *skb)
{
	skb->mark = skb->len;
	return 2;
}

SEC("xdp")
int count_packet(struct xdp_md *ctx)
{
	runs++;
	return 2;
}

SEC("?raw_tp/sys_enter")
int off_by_default(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
