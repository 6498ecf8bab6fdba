// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Programs that every kernel has, that some have, and that none has. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

long execs;

SEC("tp/sched/sched_process_exec")
int on_exec(void *ctx)
{
	execs++;
	return 0;
}

/* attaches nowhere by its name */

SEC("xdp")
int packet(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return 1;
}

SEC("iter/bpf_map_elem")
int elements(struct bpf_iter__bpf_map_elem *ctx)
{
	return 0;
}

SEC("raw_tp")
int raw_tracepoint(void *ctx)
{
	return 0;
}

/* attaches nowhere at all */

SEC("raw_tp/no_such_tracepoint")
int no_tracepoint(void *ctx)
{
	return 0;
}

/* does not load anywhere */

SEC("fentry/no_such_function")
int no_function(void *ctx)
{
	return 0;
}

/* load on some kernels: one of each is tried alone */

SEC("?fentry/bpf_fentry_test1")
int function(void *ctx)
{
	return 0;
}

SEC("?lsm/file_open")
int guard(void *ctx)
{
	return 0;
}

SEC("?lsm_cgroup/socket_bind")
int cgroup_guard(void *ctx)
{
	return 1;
}

SEC("?syscall")
int system_call(void *ctx)
{
	return 0;
}

SEC("?cgroup/connect_unix")
int connect_unix(struct bpf_sock_addr *ctx)
{
	return 1;
}

SEC("?netfilter")
int filter(void *ctx)
{
	return 1;
}

SEC("?lirc_mode2")
int remote_control(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
