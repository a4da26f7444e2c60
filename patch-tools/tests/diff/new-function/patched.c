#include "kernel.h"

static noinline int checked(int value)
{
	return outside(value) & 7;
}

int show(int value)
{
	value = checked(value);
	printk("value %d\n", value);
	return value + 1;
}

int other(int value)
{
	return outside(value) * 3;
}
