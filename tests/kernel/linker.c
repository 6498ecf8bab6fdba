/* SPDX-License-Identifier: BSD-2-Clause */
/* linker OUTPUT OBJECT...: one object made of several by libbpf, as `bpftool gen object` does. */
#include <bpf/libbpf.h>

int main(int argc, char **argv)
{
	struct bpf_linker *linker = bpf_linker__new(argv[1], NULL);

	if (!linker)
		return 1;
	for (int i = 2; i < argc; i++)
		if (bpf_linker__add_file(linker, argv[i], NULL))
			return 1;
	return bpf_linker__finalize(linker) != 0;
}
