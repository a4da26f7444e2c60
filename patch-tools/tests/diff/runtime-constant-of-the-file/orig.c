#include "kernel.h"

/* As the kernel's runtime constants: it writes the value into the code when it boots. */
#define RUNTIME_CONST(symbol) ({ \
	unsigned long value; \
	asm("mov %1, %0\n1:\n .pushsection runtime_ptr_" #symbol ", \"a\"\n .long 1b - 8 - .\n .popsection" \
	    : "=r" (value) : "i" (0x0123456789abcdefUL)); \
	value; })

static unsigned long first __used __read_mostly;
static unsigned long second __used __read_mostly = 3;

int start(unsigned long one, unsigned long two)
{
	first = one;
	second = two;
	return outside(one);
}

unsigned long find(unsigned long hash)
{
	return RUNTIME_CONST(first) * outside(hash) + RUNTIME_CONST(second) + (hash & 15);
}

unsigned long swapped(unsigned long hash)
{
	return RUNTIME_CONST(first) * outside(hash) + (hash & 15);
}
