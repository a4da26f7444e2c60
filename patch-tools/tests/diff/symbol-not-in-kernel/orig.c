#include "kernel.h"

int start_of_unit(int value)
{
	return outside(value) + 40;
}

static noinline int helper(int value)
{
	return outside(value) * 2;
}

int target(int value)
{
	return helper(value) + 1;
}
