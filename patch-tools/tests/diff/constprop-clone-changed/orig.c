#include "kernel.h"

static noinline int scaled(int value, int factor, int unused)
{
	printk("scaled by %d\n", factor);
	return outside(value) * factor;
}

int one(int value)
{
	return scaled(value, 7, 1) + 1;
}

int two(int value)
{
	return scaled(value + 1, 7, 2);
}
