// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* Programs that packets pass on a device: each appends its digit to what has run. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

long ran;

#define PASS(name, digit, verdict)            \
	SEC("tc")                             \
	int name(struct __sk_buff *skb)       \
	{                                     \
		ran = ran * 10 + digit;       \
		return verdict;               \
	}

PASS(one, 1, TC_ACT_UNSPEC)
PASS(two, 2, TC_ACT_UNSPEC)
PASS(three, 3, TC_ACT_UNSPEC)
PASS(drop, 9, TC_ACT_SHOT)

char _license[] SEC("license") = "Dual BSD/GPL";
