#include "kernel.h"

int depth(int value)
{
	if (value < 2)
		return outside(value);
	return depth(outside(value)) + depth(value - 2) * 5;
}
