/* options: -fasynchronous-unwind-tables */
#include "kernel.h"

asm(".pushsection .discard, \"aw\", @progbits\nreserved: .long 2\n .popsection");

int first(int value)
{
	return outside(value) + 1;
}

int second(int value)
{
	return outside(value) + outside(value + 2) + 2;
}
