#include "kernel.h"

int one(int value)
{
	if (value > 100)
		BUG();
	return outside(value);
}

int two(int value)
{
	WARN_ON(value < 4);
	return outside(value);
}
