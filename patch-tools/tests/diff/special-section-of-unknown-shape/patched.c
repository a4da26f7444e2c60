#include "kernel.h"

int plain(int value)
{
	asm volatile("1: .pushsection .altinstructions, \"a\"\n .long 1b - .\n .byte 1, 2, 3\n .popsection");
	return outside(value) + 1;
}
