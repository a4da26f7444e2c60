#include "kernel.h"

static notrace noinline int quiet(int value)
{
	return outside(value) & 7;
}

int show(int value)
{
	value = quiet(value);
	printk("value %d\n", value);
	return value + 1;
}

int other(int value)
{
	return outside(value) * 3;
}
