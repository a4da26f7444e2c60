#include "kernel.h"

int first(int value)
{
	static int count;

	count += value;
	return outside(count);
}

int second(int value)
{
	return outside(value);
}
