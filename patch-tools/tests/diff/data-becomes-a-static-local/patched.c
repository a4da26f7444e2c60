#include "kernel.h"

int limit(int value)
{
	static int count;

	if (++count > 10)
		return -2;
	return value;
}
