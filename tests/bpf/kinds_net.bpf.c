// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Maps that packets are sent on by: devices, CPUs and sockets. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

__u32 key;

struct target { /* struct bpf_devmap_val, struct bpf_cpumap_val */
	__u32 number;
	__u32 program;
};

#define SLOTS(kind, key_type, value_type)  \
	__uint(type, BPF_MAP_TYPE_##kind); \
	__uint(max_entries, 2);            \
	__type(key, key_type);             \
	__type(value, value_type)

struct {
	SLOTS(DEVMAP, __u32, __u32);
} interfaces SEC(".maps");

struct {
	SLOTS(DEVMAP, __u32, struct target);
} devices SEC(".maps");

struct {
	SLOTS(DEVMAP_HASH, __u32, struct target);
} device_hash SEC(".maps");

struct {
	SLOTS(CPUMAP, __u32, struct target);
} cpus SEC(".maps");

struct {
	SLOTS(XSKMAP, __u32, __u32);
} xdp_sockets SEC(".maps");

/* XDP_REDIRECT where the map has an entry key, XDP_DROP where it has none */
#define REDIRECT(map)                                     \
	SEC("xdp")                                        \
	int to_##map(struct xdp_md *ctx)                  \
	{                                                 \
		return bpf_redirect_map(&map, key, 1);    \
	}

REDIRECT(interfaces)
REDIRECT(devices)
REDIRECT(device_hash)
REDIRECT(cpus)
REDIRECT(xdp_sockets)

SEC("xdp")
int number_in_devices(struct xdp_md *ctx)
{
	struct target *target = bpf_map_lookup_elem(&devices, &key);

	return target ? target->number : 0;
}

__u64 redirected;

SEC("xdp/devmap")
int at_device(struct xdp_md *ctx)
{
	redirected++;
	return 1; /* XDP_DROP */
}

SEC("xdp/cpumap")
int at_cpu(struct xdp_md *ctx)
{
	redirected++;
	return 1;
}

/* ---- sockets ------------------------------------------------------------------------------------- */

struct {
	SLOTS(SOCKMAP, __u32, __u64);
} sockets SEC(".maps");

struct {
	SLOTS(SOCKHASH, __u32, __u64);
} socket_hash SEC(".maps");

struct {
	SLOTS(SOCKMAP, __u32, __u32);
} narrow_sockets SEC(".maps");

struct {
	SLOTS(SOCKHASH, __u32, __u32);
} narrow_hash SEC(".maps");

#define PORT(map)                                                        \
	SEC("tc")                                                        \
	int port_in_##map(struct __sk_buff *skb)                         \
	{                                                                \
		struct bpf_sock *sk = bpf_map_lookup_elem(&map, &key);   \
		__u32 port;                                              \
                                                                         \
		if (!sk)                                                 \
			return 0;                                        \
		port = sk->src_port;                                     \
		bpf_sk_release(sk);                                      \
		return port;                                             \
	}

/* the local port of a socket, 0 where there is none */
PORT(sockets)
PORT(socket_hash)

struct {
	SLOTS(REUSEPORT_SOCKARRAY, __u32, __u64);
} group SEC(".maps");

struct {
	SLOTS(REUSEPORT_SOCKARRAY, __u32, __u32);
} narrow_group SEC(".maps");

SEC("sk_reuseport")
int choose(struct sk_reuseport_md *ctx)
{
	return bpf_sk_select_reuseport(ctx, &group, &key, 0) ? 0 /* SK_DROP */ : 1 /* SK_PASS */;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
