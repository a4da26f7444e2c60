#include "kernel.h"

static noinline int helper(int value)
{
	return outside(value) + 1;
}

int caller(int value)
{
	use(helper);
	return helper(value);
}
