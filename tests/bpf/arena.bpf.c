// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* An arena, which Linux 6.9 was the first to have. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define __arena __attribute__((address_space(1)))

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4); /* pages */
} arena SEC(".maps");

/* libbpf puts it at the start of some page */
__u64 __arena cells[8] = {1, 2, 3, 4, 5, 6, 7, 8};

/* the sum of the cells, each of which is one more afterwards */
SEC("syscall")
int add_up(void *ctx)
{
	__u64 sum = 0;
	int i;

	for (i = 0; i < 8; i++)
		sum += cells[i]++;
	return sum;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
