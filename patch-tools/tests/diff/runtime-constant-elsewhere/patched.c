#include "kernel.h"

/* As the kernel's runtime constants: it writes the value into the code when it boots. */
#define RUNTIME_CONST(symbol) ({ \
	unsigned long value; \
	asm("mov %1, %0\n1:\n .pushsection runtime_ptr_" #symbol ", \"a\"\n .long 1b - 8 - .\n .popsection" \
	    : "=r" (value) : "i" (0x0123456789abcdefUL)); \
	value; })

unsigned long find(unsigned long hash)
{
	return RUNTIME_CONST(table) + (hash & 15);
}

int other(int value)
{
	return outside(value) + 2;
}
