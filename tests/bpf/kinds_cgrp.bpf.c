// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Storage of cgroups, which Linux 6.2 was the first to have. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_CGRP_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} cgroups SEC(".maps");

/* one more for the cgroup of this process: how many now */
SEC("raw_tp")
int count_cgroup(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 *count = bpf_cgrp_storage_get(&cgroups, task->cgroups->dfl_cgrp, 0,
					    BPF_LOCAL_STORAGE_GET_F_CREATE);

	return count ? ++*count : -1;
}

char LICENSE[] SEC("license") = "GPL";
