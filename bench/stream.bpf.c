// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Records that say when they were written, for latency.py and soak.py. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct event { /* 64 bytes */
	__u64 sequence; /* of those that were written or found no room */
	__u64 time;
	__u64 payload[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
	__type(value, struct event);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} perf SEC(".maps");

__u64 written;
__u64 dropped;

#define AT_MOST 1024

/* Writes as many records as the first argument says, at most 1024. */
SEC("raw_tp")
int to_ring(__u64 *args)
{
	__u64 count = args[0];

	for (int i = 0; i < AT_MOST && i < count; i++) {
		__u64 sequence = written++;
		struct event *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);

		if (!event) {
			dropped++;
			continue;
		}
		event->sequence = sequence;
		event->time = bpf_ktime_get_ns();
		bpf_ringbuf_submit(event, 0);
	}
	return 0;
}

SEC("raw_tp")
int to_perf(__u64 *args)
{
	struct event event = {.sequence = written++, .time = bpf_ktime_get_ns()};

	return bpf_perf_event_output(args, &perf, BPF_F_CURRENT_CPU, &event, sizeof(event));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
