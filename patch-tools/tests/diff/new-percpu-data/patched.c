#include "kernel.h"

static int __section(".data..percpu") seen;

int show(int value)
{
	use(&seen);
	printk("value %d\n", value);
	return value + 1;
}

int other(int value)
{
	return outside(value) * 3;
}
