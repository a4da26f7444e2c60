#include "kernel.h"

static noinline int helper(int value)
{
	static int count;

	count += value;
	return outside(count);
}

int target(int value)
{
	return helper(value) + 1;
}
