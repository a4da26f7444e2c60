#include "kernel.h"

asm(".pushsection .data.calls, \"aw\", @init_array\n .type calls, @object\n .size calls, 4\n"
    "calls: .long 1\n .popsection");
extern int calls;

int show(int value)
{
	calls++;
	use(&calls);
	printk("value %d\n", value);
	return value + 1;
}

int other(int value)
{
	return outside(value) * 3;
}
