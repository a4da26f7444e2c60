#include "kernel.h"

static noinline int added(int value, int factor)
{
	return outside(value) - factor;
}

int early(int value)
{
	return added(value, 3) + added(1, 3);
}

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
