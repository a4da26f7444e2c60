#include "kernel.h"

int helper(int value)
{
	return outside(value) + 2;
}

int table[] = { 1, 2, 3 };

int sleeps(int value)
{
	might_sleep();
	return outside(value);
}
