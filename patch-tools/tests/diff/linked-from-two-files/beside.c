/* file: second.c */
#include "kernel.h"

static noinline int helper(int value)
{
	static int count = 3;

	count -= value;
	return outside(count) * 2;
}

int elsewhere(int value)
{
	return helper(value) + 5;
}
