/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * USDT probes: an instruction to stop at, and a note that tells where it is, what it is called and
 * where its argument of 8 bytes is.  `semaphore` is 0 or a 16-bit variable.
 */
#define PROBE(provider, name, semaphore, argument)                                    \
	asm volatile("991: nop\n"                                                     \
		     ".pushsection .note.stapsdt, \"\", \"note\"\n"                   \
		     ".balign 4\n"                                                    \
		     ".4byte 993f - 992f, 995f - 994f, 3\n"                           \
		     "992: .asciz \"stapsdt\"\n"                                      \
		     "993: .balign 4\n"                                               \
		     "994: .8byte 991b, 0, " #semaphore "\n"                          \
		     ".asciz \"" #provider "\"\n"                                     \
		     ".asciz \"" #name "\"\n"                                         \
		     ".asciz \"-8@%0\"\n"                                             \
		     "995: .balign 4\n"                                               \
		     ".popsection\n"                                                  \
		     :                                                                \
		     : "r"((long)(argument)))
