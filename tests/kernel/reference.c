/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * reference OBJECT: what libbpf makes of it, a line of tab-separated fields each:
 *   open      ERRNO
 *   program   NAME SECTION TYPE ATTACH_TYPE INSNS AUTOLOAD     before load
 *   map       NAME TYPE KEY_SIZE VALUE_SIZE MAX_ENTRIES FLAGS PINNED
 *   load      ERRNO
 *   loaded    NAME                                             programs in the kernel afterwards
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <bpf/libbpf.h>

static int silent(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return 0;
}

int main(int argc, char **argv)
{
	struct bpf_object *object;
	struct bpf_program *program;
	struct bpf_map *map;
	int err;

	libbpf_set_print(silent);
	object = bpf_object__open_file(argv[argc - 1], NULL);
	printf("open\t%d\n", object ? 0 : errno);
	if (!object)
		return 0;
	bpf_object__for_each_program(program, object)
		printf("program\t%s\t%s\t%d\t%d\t%zu\t%d\n", bpf_program__name(program),
		       bpf_program__section_name(program), bpf_program__type(program),
		       bpf_program__expected_attach_type(program), bpf_program__insn_cnt(program),
		       bpf_program__autoload(program));
	bpf_object__for_each_map(map, object) {
		printf("map\t%s\t%d\t%u\t%u\t%u\t%u\t%d\n", bpf_map__name(map), bpf_map__type(map),
		       bpf_map__key_size(map), bpf_map__value_size(map), bpf_map__max_entries(map),
		       bpf_map__map_flags(map), bpf_map__pin_path(map) != NULL);
		bpf_map__set_pin_path(map, NULL);
	}
	fflush(stdout);
	err = bpf_object__load(object);
	printf("load\t%d\n", -err);
	bpf_object__for_each_program(program, object)
		if (!err && bpf_program__fd(program) >= 0)
			printf("loaded\t%s\n", bpf_program__name(program));
	bpf_object__close(object);
	return 0;
}
