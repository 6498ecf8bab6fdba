// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* Programs of a network namespace. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

__u32 refused_port;
long dissected;

SEC("sk_lookup")
int refuse(struct bpf_sk_lookup *ctx)
{
	return ctx->local_port == refused_port ? 0 /* SK_DROP */ : 1 /* SK_PASS */;
}

SEC("flow_dissector")
int dissect(struct __sk_buff *skb)
{
	dissected += 1;
	return 129; /* BPF_FLOW_DISSECTOR_CONTINUE */
}

/* has the kernel dissect each packet for its hash */
SEC("tc")
int hash(struct __sk_buff *skb)
{
	bpf_set_hash_invalid(skb);
	bpf_get_hash_recalc(skb);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
