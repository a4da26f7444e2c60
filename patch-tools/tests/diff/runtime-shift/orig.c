#include "kernel.h"

/* A number that the kernel writes into the code when it boots. */
#define RUNTIME_SHIFT(value, symbol) ({ \
	unsigned int shifted = (value); \
	asm("shrl $12, %k0\n1:\n .pushsection runtime_shift_" #symbol ", \"a\"\n .long 1b - 1 - .\n .popsection" \
	    : "+r" (shifted)); \
	shifted; })

unsigned int find(unsigned int hash)
{
	return RUNTIME_SHIFT(hash, bits) + 1;
}

unsigned int other(unsigned int hash)
{
	return RUNTIME_SHIFT(hash, bits) + outside(2);
}
