/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program, and a library, whose functions tests watch.  The program calls them by name: each line
 * it reads is a name and a number, and what the function gives is what it writes.
 */
#include <stdio.h>
#include <string.h>

#include "watched_probes.h"

#define WATCHED __attribute__((noinline, noclone, visibility("default")))

WATCHED long add_one(long number)
{
	return number + 1;
}

WATCHED long add_two(long number)
{
	return number + 2;
}

WATCHED long calls_add_one(long number)
{
	return add_one(number) * 10;
}

/* the kernel counts those who watch */
unsigned short watchers __attribute__((section(".probes")));

WATCHED long count_watchers(long number)
{
	return number + *(volatile unsigned short *)&watchers;
}

unsigned short guarded_semaphore __attribute__((section(".probes")));

/* a probe in two places, with its argument in different registers, and one that has a semaphore */
WATCHED long pass_probes(long number)
{
	PROBE(watched, plain, 0, number);
	PROBE(watched, plain, 0, number + 1);
	if (*(volatile unsigned short *)&guarded_semaphore)
		PROBE(watched, guarded, guarded_semaphore, number);
	return number;
}

/* the name of a function of the library's other half as well */
__attribute__((noinline, noclone, used)) static long twin(long number)
{
	return number + 3;
}

WATCHED long call_twin(long number)
{
	return twin(number);
}

/* what add_three is, is chosen when the program starts */
static long add_three_here(long number)
{
	return number + 3;
}

static long (*choose(void))(long)
{
	return add_three_here;
}

WATCHED long add_three(long number) __attribute__((ifunc("choose")));

#ifdef PROGRAM
static const struct {
	const char *name;
	long (*function)(long);
} functions[] = {
	{"add_one", add_one},	      {"add_two", add_two},	    {"calls_add_one", calls_add_one},
	{"pass_probes", pass_probes}, {"call_twin", call_twin}, {"count_watchers", count_watchers},
};

int main(void)
{
	char name[32];
	long number;

	while (scanf("%31s %ld", name, &number) == 2) {
		for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++)
			if (!strcmp(name, functions[i].name))
				printf("%ld\n", functions[i].function(number));
		fflush(stdout);
	}
	return 0;
}
#endif
