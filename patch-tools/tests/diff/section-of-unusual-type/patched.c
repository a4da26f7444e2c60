#include "kernel.h"

/* The assembler takes the rest of the line for a comment. */
static __attribute__((section(".data.calls,\"aw\",@init_array#"))) int calls = 1;

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
