#include "kernel.h"

int show(int value)
{
	printk("value %d\n", value);
	return value + 1;
}

int other(int value)
{
	return outside(value) * 3;
}
