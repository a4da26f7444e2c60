#include "kernel.h"

int inserted(void)
{
	static int count = 3;

	return outside(count++);
}

int first(int value)
{
	static int count;

	count += value;
	return outside(count);
}

int second(int value)
{
	static int count = 7;

	count -= value * 2;
	return outside(count);
}
