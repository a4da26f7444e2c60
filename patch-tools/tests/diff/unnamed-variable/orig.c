#include "kernel.h"

int count(int value)
{
	asm volatile("incl 1f(%%rip)\n .pushsection .data.unnamed, \"aw\"\n1: .long 7\n .popsection" : : : "memory");
	return outside(value);
}
