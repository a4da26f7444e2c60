#include "kernel.h"

int plain(int value)
{
	asm volatile("1: .pushsection .return_sites, \"a\"\n .long 1b - .\n .popsection");
	return outside(value);
}

int fancy(int value)
{
	asm volatile("1: .pushsection .return_sites, \"a\"\n .long 1b - .\n .popsection");
	return outside(value) + 2;
}
