// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* TCP congestion controls by links: one, another that can take its place, and one that cannot. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

long first_seen, second_seen; /* connections that began with it */

SEC("struct_ops/ssthresh")
__u32 BPF_PROG(ssthresh, struct sock *sk)
{
	return 10;
}

SEC("struct_ops/cong_avoid")
void BPF_PROG(cong_avoid, struct sock *sk, __u32 ack, __u32 acked)
{
}

SEC("struct_ops/undo_cwnd")
__u32 BPF_PROG(undo_cwnd, struct sock *sk)
{
	return 10;
}

SEC("struct_ops/begin_first")
void BPF_PROG(begin_first, struct sock *sk)
{
	first_seen++;
}

SEC("struct_ops/begin_second")
void BPF_PROG(begin_second, struct sock *sk)
{
	second_seen++;
}

#define CONTROL(variable, words, begin)              \
	SEC(".struct_ops.link")                      \
	struct tcp_congestion_ops variable = {       \
		.ssthresh = (void *)ssthresh,        \
		.cong_avoid = (void *)cong_avoid,    \
		.undo_cwnd = (void *)undo_cwnd,      \
		.init = (void *)begin,               \
		.name = words,                       \
	};

CONTROL(first, "pybpf_ops", begin_first)
CONTROL(second, "pybpf_ops", begin_second)
CONTROL(other, "pybpf_other", begin_second)

char LICENSE[] SEC("license") = "GPL";
