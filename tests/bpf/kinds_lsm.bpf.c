// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Storage of files, which only LSM programs reach. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} files SEC(".maps");

/* one more for a file that is opened and has a value */
SEC("lsm/file_open")
int BPF_PROG(count_open, struct file *file)
{
	__u64 *count = bpf_inode_storage_get(&files, file->f_inode, 0, 0);

	if (count)
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
