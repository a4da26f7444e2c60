#include "kernel.h"

/* Another function jumps behind the start of this one. */
int target(int value)
{
	asm volatile(".globl target_inside\ntarget_inside:");
	return outside(value) + 2;
}

int jumps(int value)
{
	asm volatile("jmp target_inside");
	return value;
}
