#include "kernel.h"

int helper(int value);

noinline int helper(int value)
{
	return outside(value) + 1;
}

int caller(int value)
{
	use(helper);
	return helper(value);
}
