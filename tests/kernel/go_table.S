/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table that Go 1.20 and newer put into programs, of two functions: behind the header their
 * names, then a list of where they and their descriptions are, and these.
 */
TEXT = 0x400000			/* where the linker puts programs; addresses are relative to it */

	.section .gopclntab, "a"
	.balign 8
table:	.4byte 0xfffffff1
	.byte 0, 0, 1, 8
	.8byte 2, 0			/* functions, files */
	.8byte TEXT
	.8byte names - table
	.8byte 0, 0, 0
	.8byte places - table
names:	.asciz "main.main"
second:	.asciz "main.(*Counter).Add"
	.balign 8
places:	.4byte main - TEXT, first_info - places
	.4byte add_two - TEXT, second_info - places
	.4byte 0
first_info:
	.4byte main - TEXT, 0
second_info:
	.4byte add_two - TEXT, second - names

	.section .note.GNU-stack, "", %progbits
