#include "kernel.h"

int helper_for_others(int value)
{
	return outside(value) - 1;
}

int show(int value)
{
	printk("value %d\n", value);
	return value + 1;
}

int other(int value)
{
	return outside(value) * 3;
}
