// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A program for each hook of cgroups, which counts its runs and, where it may, refuses what is done. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

long seen;
__u32 refuse;       /* whether that is the verdict */
__u16 redirect_to; /* the port that `connect4` puts into the place of another, in network order */
__u32 order;       /* a digit for each of `first`, `second` and `third`, as they run */

#define COUNT(section, name, context)            \
	SEC(section)                             \
	int name(context *ctx)                   \
	{                                        \
		seen++;                          \
		return !refuse;                  \
	}

/* where the kernel takes no other verdict */
#define ONLY_COUNT(section, name, context)       \
	SEC(section)                             \
	int name(context *ctx)                   \
	{                                        \
		seen++;                          \
		return 1;                        \
	}

COUNT("cgroup_skb/ingress", ingress, struct __sk_buff)
COUNT("cgroup_skb/egress", egress, struct __sk_buff)
COUNT("cgroup/skb", either, struct __sk_buff)
COUNT("cgroup/sock_create", sock_create, struct bpf_sock)
COUNT("cgroup/sock_release", sock_release, struct bpf_sock)
COUNT("cgroup/post_bind4", post_bind4, struct bpf_sock)
COUNT("cgroup/post_bind6", post_bind6, struct bpf_sock)
COUNT("cgroup/bind4", bind4, struct bpf_sock_addr)
COUNT("cgroup/bind6", bind6, struct bpf_sock_addr)
COUNT("cgroup/connect6", connect6, struct bpf_sock_addr)
COUNT("cgroup/sendmsg4", sendmsg4, struct bpf_sock_addr)
COUNT("cgroup/sendmsg6", sendmsg6, struct bpf_sock_addr)
ONLY_COUNT("cgroup/recvmsg4", recvmsg4, struct bpf_sock_addr)
ONLY_COUNT("cgroup/recvmsg6", recvmsg6, struct bpf_sock_addr)
ONLY_COUNT("cgroup/getpeername4", getpeername4, struct bpf_sock_addr)
ONLY_COUNT("cgroup/getpeername6", getpeername6, struct bpf_sock_addr)
ONLY_COUNT("cgroup/getsockname4", getsockname4, struct bpf_sock_addr)
ONLY_COUNT("cgroup/getsockname6", getsockname6, struct bpf_sock_addr)
COUNT("cgroup/sysctl", sysctl, struct bpf_sysctl)
COUNT("sockops", socket_states, struct bpf_sock_ops)
/* Linux 6.7 */
COUNT("?cgroup/connect_unix", connect_unix, struct bpf_sock_addr)
COUNT("?cgroup/sendmsg_unix", sendmsg_unix, struct bpf_sock_addr)
ONLY_COUNT("?cgroup/recvmsg_unix", recvmsg_unix, struct bpf_sock_addr)
ONLY_COUNT("?cgroup/getpeername_unix", getpeername_unix, struct bpf_sock_addr)
ONLY_COUNT("?cgroup/getsockname_unix", getsockname_unix, struct bpf_sock_addr)
/* Linux 6.0, where there are trampolines */
COUNT("?lsm_cgroup/socket_bind", lsm_bind, void)

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	seen++;
	if (redirect_to)
		ctx->user_port = redirect_to;
	return !refuse;
}

/* /dev/zero alone, for others use what the test opens too */
SEC("cgroup/dev")
int device(struct bpf_cgroup_dev_ctx *ctx)
{
	if (ctx->major != 1 || ctx->minor != 5)
		return 1;
	seen++;
	return !refuse;
}

/* SO_MARK (of SOL_SOCKET) is always 77 */
SEC("cgroup/getsockopt")
int getsockopt(struct bpf_sockopt *ctx)
{
	__u32 *value = ctx->optval;

	if (ctx->level != 1 || ctx->optname != 36)
		return 1;
	seen++;
	if ((void *)(value + 1) > ctx->optval_end)
		return 0;
	*value = 77;
	ctx->retval = 0;
	return 1;
}

SEC("cgroup/setsockopt")
int setsockopt(struct bpf_sockopt *ctx)
{
	if (ctx->level != 1 || ctx->optname != 36)
		return 1;
	seen++;
	return !refuse;
}

#define ORDERED(name, digit)                    \
	SEC("cgroup/sock_create")               \
	int name(struct bpf_sock *ctx)          \
	{                                       \
		order = order * 10 + digit;     \
		return 1;                       \
	}

ORDERED(first, 1)
ORDERED(second, 2)
ORDERED(third, 3)

char LICENSE[] SEC("license") = "GPL";
