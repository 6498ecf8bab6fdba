// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What tests link with overload.bpf.c to one object: both have pybpf/events.bpf.h and its map. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <pybpf/events.bpf.h>

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} linked_ring SEC(".maps");

SEC("raw_tp")
int emit_linked(__u64 *args)
{
	__u64 record = args[0];

	PYBPF_EMIT(linked_ring, &record, sizeof(record));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
