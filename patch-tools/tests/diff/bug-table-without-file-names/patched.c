#include "kernel.h"

/* Without file names. */
#define NEW_BUG(flags) \
	asm volatile("1: .byte 0x0f, 0x0b\n" \
		".pushsection __bug_table, \"aw\"\n" \
		"2: .long 1b - .\n .word %c2\n .org 2b + 8\n" \
		".popsection" : : "i" (0), "i" (0), "i" (flags))

int one(int value)
{
	if (value > 100)
		NEW_BUG(0x901);
	return outside(value);
}

int two(int value)
{
	if (value > 200)
		NEW_BUG(0x901);
	return outside(value) + 2;
}
