#include "kernel.h"

/* Faults continue out of line, as before 5.17. */
#define OLD_READ(value, address) \
	asm volatile("1: movl (%1), %0\n2:\n" \
		".pushsection .fixup, \"ax\"\n3: movl $-22, %0\n jmp 2b\n .popsection\n" \
		".pushsection __ex_table, \"a\"\n .balign 4\n .long 1b - .\n .long 3b - .\n .long 0\n .popsection" \
		: "=r" (value) : "r" (address))

int one(int *address)
{
	int value;

	OLD_READ(value, address);
	return outside(value);
}

int two(int *address)
{
	int value;

	OLD_READ(value, address + 1);
	return outside(value) + 1;
}
