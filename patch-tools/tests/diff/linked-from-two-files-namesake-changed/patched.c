#include "kernel.h"

static noinline int helper(int value)
{
	static int count;

	count += value;
	return outside(count) + 4;
}

int target(int value)
{
	return helper(value) + 1;
}
