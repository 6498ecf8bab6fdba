/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * btf_members FILE: every struct and union of a BTF as libbpf reads it, tab-separated lines:
 *   struct    ID SIZE                      a union too
 *   member    NAME BIT_OFFSET BITS IS_BITFIELD SIGN
 * The members of a struct follow it, those of anonymous members in place of these; BIT_OFFSET counts
 * from the struct of the line.  SIGN is 's' or 'u' for integers and enums, '-' for anything else.
 */
#include <stdio.h>
#include <stdlib.h>
#include <bpf/btf.h>

static const struct btf *btf;

static const struct btf_type *below_typedefs(__u32 id)
{
	return btf__type_by_id(btf, btf__resolve_type(btf, id));
}

static char sign(const struct btf_type *type)
{
	if (btf_is_int(type))
		return btf_int_encoding(type) & BTF_INT_SIGNED ? 's' : 'u';
	if (btf_is_enum(type) || BTF_INFO_KIND(type->info) == 19 /* BTF_KIND_ENUM64 */)
		return btf_kflag(type) ? 's' : 'u';
	return '-';
}

/* An integer of fewer bits than its bytes have is how bitfields were written before 2018. */
static int is_old_bitfield(const struct btf_type *type)
{
	return btf_is_int(type) &&
	       (btf_int_bits(type) != 8 * type->size || btf_int_offset(type) != 0);
}

static void members(const struct btf_type *composite, long long start)
{
	const struct btf_member *member = btf_members(composite);

	for (int i = 0; i < btf_vlen(composite); i++, member++) {
		const struct btf_type *type = below_typedefs(member->type);
		const char *name = btf__name_by_offset(btf, member->name_off);
		long long offset = start + btf_member_bit_offset(composite, i);
		long long bits = btf_member_bitfield_size(composite, i);
		int is_bitfield = bits != 0;

		if (!*name) {
			if (btf_is_composite(type))
				members(type, offset);
			continue;
		}
		if (!btf_kflag(composite) && is_old_bitfield(type)) {
			offset += btf_int_offset(type);
			bits = btf_int_bits(type);
			is_bitfield = 1;
		}
		if (!is_bitfield)
			bits = 8 * btf__resolve_size(btf, member->type);
		printf("member\t%s\t%lld\t%lld\t%d\t%c\n", name, offset, bits, is_bitfield,
		       sign(type));
	}
}

int main(int argc, char **argv)
{
	btf = btf__parse(argv[argc - 1], NULL);
	if (!btf) {
		perror(argv[argc - 1]);
		return 1;
	}
	for (__u32 id = 1; id < btf__type_cnt(btf); id++) {
		const struct btf_type *type = btf__type_by_id(btf, id);

		if (!btf_is_composite(type))
			continue;
		printf("struct\t%u\t%u\n", id, type->size);
		members(type, 0);
	}
	return 0;
}
