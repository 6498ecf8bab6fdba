// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The verifier refuses it: a map value is used without the check for NULL. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

SEC("tp/sched/sched_process_exec")
int unchecked(void *ctx)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&counts, &key);

	*value += 1; /* no check */
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
