// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Values of the kernel's configuration, and one that no kernel has. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

extern unsigned int LINUX_KERNEL_VERSION __kconfig;
extern int CONFIG_PYBPF_TEST __kconfig __weak;

SEC("raw_tp")
int kernel_version(void *ctx)
{
	return LINUX_KERNEL_VERSION >> 8;
}

SEC("raw_tp")
int test_value(void *ctx)
{
	return CONFIG_PYBPF_TEST;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
