#include "kernel.h"

static noinline __init int prepare(int value)
{
	return outside(value) * 5;
}

static int __init setup(void)
{
	return prepare(3);
}
module_init(setup);

int later(int value)
{
	return outside(value);
}
