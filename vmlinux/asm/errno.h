/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * The error numbers that <bpf/usdt.bpf.h> returns, by <linux/errno.h>.  Each machine has its own
 * <asm/errno.h>, where clang does not look for it when it compiles for BPF; these are all the same.
 */
#ifndef __ASM_ERRNO_H__
#define __ASM_ERRNO_H__

#define ENOENT 2
#define ESRCH 3
#define EINVAL 22

#endif
