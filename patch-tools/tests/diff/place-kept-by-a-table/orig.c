#include "kernel.h"

/* A table of places that nobody here knows the use of. */
#define PLACE() asm volatile("1:\n .pushsection places, \"a\"\n .long 1b - .\n .popsection")

int find(int value)
{
	value = outside(value);
	PLACE();
	return outside(value + 15);
}

int other(int value)
{
	return outside(value) + 1;
}
