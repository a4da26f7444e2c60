#include "kernel.h"

asm(".pushsection .data.table, \"aw\"\n .long 1, 2, 7\n .popsection");

int show(int value)
{
	return outside(value);
}
