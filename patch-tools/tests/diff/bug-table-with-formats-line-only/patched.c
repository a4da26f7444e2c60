#include "kernel.h"

/* With a place for a format, as from 7.0 on. */
#define NEW_BUG(flags) \
	asm volatile("1: .byte 0x0f, 0x0b\n" \
		".pushsection __bug_table, \"aw\"\n" \
		"2: .long 1b - .\n .long %c3 - .\n .long %c0 - .\n .word %c1\n .word %c2\n .org 2b + 16\n" \
		".popsection" : : "i" (__FILE__), "i" (__LINE__), "i" (flags), "i" ("value"))

/* Moves the lines. */
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
	return outside(value) + 1;
}
