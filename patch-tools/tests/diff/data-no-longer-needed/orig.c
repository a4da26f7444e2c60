#include "kernel.h"

static int count;

int limit(int value)
{
	if (++count > 10)
		return -1;
	return value;
}
