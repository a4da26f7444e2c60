#include "kernel.h"

noinline int implementation(int value)
{
	return outside(value) + 1;
}
int alias_of_it(int value) __attribute__((alias("implementation")));

int caller(int value)
{
	return alias_of_it(value);
}
