// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Variables of every shape, a program that tells what it reads in them, and one that writes them. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

enum mode {
	OFF,
	SLOW = 3,
	FAST = 7,
};

enum distance {
	BEHIND = -1,
	FAR = 1LL << 40,
};

struct limit {
	__u8 kind;
	__u32 most; /* after three bytes of padding */
};

struct config {
	__u32 pid;
	enum mode mode;
	__be16 port;
	__be32 address;
	bool strict;
	__s16 offset;
	char name[12];
	__u32 limits[4];
	struct limit table[2];
	union {
		__u64 whole;
		__u32 halves[2];
	};
	struct {
		__u8 asdict; /* named like a method of the view in Python */
		__s8 inner;
	};
	enum distance distance;
};

struct bits {
	__u32 low : 3;
	__s32 middle : 7;
	__u32 high : 22;
	__u64 wide : 40;
	enum mode mode : 4;
};

struct record {
	__u8 tag;
	__u64 value;
	__u16 tail;
} __attribute__((packed));

/* constants */
const volatile struct config preset = {.pid = 1, .name = "preset", .limits = {1, 2, 3, 4}};
const volatile __u32 wanted = 5;
const volatile __u32 custom_constant SEC(".rodata.custom") = 6;

/* initialised */
struct config cfg = {.pid = 10, .mode = SLOW, .name = "start", .limits = {10, 20, 30, 40}};
struct record record = {.tag = 1, .value = 2, .tail = 3};
enum mode mode = SLOW;
enum distance distance = FAR;
__be32 network = __bpf_constant_htonl(0x7f000001);
__s64 negative = -2;
char names[3][8] = {"one", "two", "three"};
__u32 custom SEC(".data.custom") = 7;
struct limit custom_limits[2] SEC(".data.custom") = {{1, 2}, {3, 4}};

/* zero */
__u64 counter;
__u64 hist[3][8];
struct bits bits;
bool seen;
void *pointer;
__u8 small;
__u16 medium;
__u64 custom_counter SEC(".bss.custom");

static volatile __u32 own_only = 2;

/* the test gives all three one name, as linked objects may have */
static volatile __u32 twin_a = 10;
static volatile __u32 twin_b = 200;
static volatile __u32 twin_c SEC(".data.custom") = 3000;

extern unsigned int LINUX_KERNEL_VERSION __kconfig;
extern int CONFIG_PYBPF_TEST __kconfig __weak;
extern char CONFIG_PYBPF_NAME[16] __kconfig __weak;
extern enum libbpf_tristate CONFIG_BPF_SYSCALL __kconfig __weak;

struct report {
	__u64 numbers[40];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct report);
} reports SEC(".maps");

/* what this program reads, in an order that the test knows */
SEC("raw_tp")
int read_all(void *ctx)
{
	__u32 zero = 0;
	struct report *report = bpf_map_lookup_elem(&reports, &zero);
	__u64 *to;

	if (!report)
		return 0;
	to = report->numbers;
	to[0] = cfg.pid;
	to[1] = cfg.mode;
	to[2] = bpf_ntohs(cfg.port);
	to[3] = bpf_ntohl(cfg.address);
	to[4] = cfg.strict;
	to[5] = cfg.offset;
	to[6] = cfg.name[0];
	to[7] = cfg.name[1];
	to[8] = cfg.limits[3];
	to[9] = cfg.table[1].kind;
	to[10] = cfg.table[1].most;
	to[11] = cfg.whole;
	to[12] = cfg.asdict;
	to[13] = cfg.inner;
	to[14] = cfg.distance;
	to[15] = bits.low;
	to[16] = bits.middle;
	to[17] = bits.high;
	to[18] = bits.wide;
	to[19] = bits.mode;
	to[20] = record.tag;
	to[21] = record.value;
	to[22] = record.tail;
	to[23] = hist[2][5];
	to[24] = counter;
	to[25] = names[1][0];
	to[26] = custom;
	to[27] = custom_limits[1].most;
	to[28] = custom_counter;
	to[29] = preset.limits[2];
	to[30] = wanted;
	to[31] = custom_constant;
	static volatile __u32 once SEC(".data.custom") = 32;
	to[32] = once;
	to[33] = own_only + twin_a + twin_b + twin_c;
	to[34] = mode;
	to[35] = negative;
	to[36] = bpf_ntohl(network);
	to[37] = small + medium;
	to[38] = LINUX_KERNEL_VERSION;
	to[39] = CONFIG_PYBPF_TEST + CONFIG_BPF_SYSCALL + CONFIG_PYBPF_NAME[0];
	return 40;
}

SEC("raw_tp")
int write_all(void *ctx)
{
	cfg.pid = 4242;
	cfg.mode = FAST;
	cfg.port = bpf_htons(8080);
	cfg.address = bpf_htonl(0x0a000001);
	cfg.strict = true;
	cfg.offset = -7;
	__builtin_memcpy(cfg.name, "program", 8);
	cfg.limits[3] = 77;
	cfg.table[1].kind = 8;
	cfg.table[1].most = 88;
	cfg.whole = 0x100000002;
	cfg.asdict = 9;
	cfg.inner = -9;
	cfg.distance = BEHIND;
	bits.low = 5;
	bits.middle = -33;
	bits.high = 0x3fffff;
	bits.wide = 1ULL << 39;
	bits.mode = FAST;
	record.tag = 11;
	record.value = 1ULL << 60;
	record.tail = 12;
	hist[2][5] = 25;
	counter++;
	__builtin_memcpy(names[1], "second", 7);
	custom = 70;
	custom_limits[1].most = 71;
	custom_counter = 72;
	own_only = 73;
	mode = FAST;
	distance = BEHIND;
	negative = -3;
	network = bpf_htonl(0x01020304);
	seen = true;
	pointer = ctx;
	small = 255;
	medium = 65535;
	return 0;
}

/* two values that differ in every byte, in turns: half of one would show */
SEC("socket")
int turn(void *ctx)
{
	for (int i = 0; i < 1000; i++) {
		__u64 value = i & 1 ? 0x1111111111111111 : 0x2222222222222222;

		*(volatile __u64 *)&counter = value;
		*(volatile __u64 *)&hist[1][1] = value;
	}
	return custom_constant == 0;
}

/* what lies between two members that Python writes */
SEC("socket")
int count(void *ctx)
{
	for (int i = 0; i < 1000; i++)
		__atomic_fetch_add(&cfg.limits[1], 1, __ATOMIC_RELAXED);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
