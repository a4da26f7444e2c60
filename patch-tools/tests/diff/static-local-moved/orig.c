#include "kernel.h"

int first(int value)
{
	static int count;

	count += value;
	return outside(count);
}

int second(int value)
{
	static int count = 7;

	count -= value;
	return outside(count);
}
