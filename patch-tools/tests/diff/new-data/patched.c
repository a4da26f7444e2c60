#include "kernel.h"

static int calls;

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
