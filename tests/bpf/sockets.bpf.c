// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* Programs of sockets. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define SK_DROP 0
#define SK_PASS 1

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

long seen;

SEC("sk_msg")
int count_sent(struct sk_msg_md *msg)
{
	seen += 1;
	return SK_PASS;
}

SEC("sk_msg")
int refuse_sent(struct sk_msg_md *msg)
{
	return SK_DROP;
}

SEC("sk_skb/stream_parser")
int parse(struct __sk_buff *skb)
{
	seen += 1;
	return skb->len;
}

SEC("sk_skb/stream_verdict")
int count_received(struct __sk_buff *skb)
{
	seen += 1000;
	return SK_PASS;
}

SEC("sk_skb")
int count_any(struct __sk_buff *skb)
{
	seen += 1;
	return SK_PASS;
}

SEC("socket")
int shorten(struct __sk_buff *skb)
{
	return 8 + 3; /* UDP's header, and three bytes */
}

SEC("socket")
int drop(struct __sk_buff *skb)
{
	return 0;
}

__u32 chosen;

SEC("socket")
int choose(struct __sk_buff *skb)
{
	return chosen;
}

char _license[] SEC("license") = "Dual BSD/GPL";
