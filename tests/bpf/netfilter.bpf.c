// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* Programs on packets' way through the kernel. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

long seen;
long longest;

SEC("netfilter")
int accept(struct bpf_nf_ctx *ctx)
{
	seen += 1;
	if (ctx->skb->len > longest)
		longest = ctx->skb->len;
	return NF_ACCEPT;
}

SEC("netfilter")
int drop(struct bpf_nf_ctx *ctx)
{
	return NF_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
