// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Records of any size and number, written on the CPU that test_run chooses. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct sample {
	__u64 sequence; /* among those of its CPU */
	__u64 time;
	__u32 cpu;
	__u32 size; /* of the whole record */
};

struct tailed {
	struct sample head;
	__u8 rest[];
};

struct tailed *unused; /* keeps the type */

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} samples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} others SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} ring SEC(".maps");

#define CPUS 16 /* as many as write at once have a place of their own */
#define LARGEST (1 << 17)
#define AT_MOST 64 /* per run; the verifier goes through every round */

/* what records are written from: user space says what stands behind their beginning */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CPUS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, LARGEST);
} scratch SEC(".maps");

struct counts {
	__u64 produced; /* or tried to */
	__u64 refused;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CPUS);
	__type(key, __u32);
	__type(value, struct counts);
} counts SEC(".maps");

static __always_inline int produce(void *ctx, __u64 count, __u64 size, void *map, bool into_ring)
{
	__u32 cpu = bpf_get_smp_processor_id(), place = cpu % CPUS;
	struct sample *sample = bpf_map_lookup_elem(&scratch, &place);
	struct counts *counted = bpf_map_lookup_elem(&counts, &place);
	int i;

	if (!sample || !counted || size > LARGEST)
		return -1;
	sample->cpu = cpu;
	sample->size = size;
	for (i = 0; i < AT_MOST && i < count; i++) {
		long err;

		sample->sequence = counted->produced++;
		sample->time = bpf_ktime_get_ns();
		err = into_ring ? bpf_ringbuf_output(map, sample, size, 0)
				: bpf_perf_event_output(ctx, map, BPF_F_CURRENT_CPU, sample, size);
		if (err)
			counted->refused++;
	}
	return i;
}

/* count, size */
SEC("raw_tp")
int to_samples(__u64 *args)
{
	return produce(args, args[0], args[1], &samples, false);
}

SEC("raw_tp")
int to_others(__u64 *args)
{
	return produce(args, args[0], args[1], &others, false);
}

SEC("raw_tp")
int to_ring(__u64 *args)
{
	return produce(args, args[0], args[1], &ring, true);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
