#include "kernel.h"

asm(".pushsection .data..shared, \"aw\"\n .globl first\n .type first, @object\nfirst: .long 1\n .size first, 4\n"
	" .long 11\n .globl second\n .type second, @object\nsecond: .long 2\n .size second, 4\n .popsection");
extern int first, second;

int show(int value)
{
	use(&second);
	return outside(first);
}
