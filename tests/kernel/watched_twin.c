/* SPDX-License-Identifier: BSD-2-Clause */
/* another function of the name that one in watched.c has */
__attribute__((noinline, noclone, used)) static long twin(long number)
{
	return number + 4;
}

long call_other_twin(long number)
{
	return twin(number);
}
