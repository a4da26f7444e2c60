#include "kernel.h"

noinline int implementation(int value)
{
	return outside(value) + 1;
}
int other_name(int value)
{
	return outside(value) + 2;
}
