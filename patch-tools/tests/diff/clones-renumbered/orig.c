#include "kernel.h"

static noinline int scaled(int value, int factor)
{
	printk("scaled by %d\n", factor);
	return outside(value) * factor;
}

int one(int value)
{
	return scaled(value, 7) + 1;
}

int two(int value)
{
	return scaled(value + 1, 7);
}
