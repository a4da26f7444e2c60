#include "kernel.h"

static const int limits[4] = { 1, 2, 3, 4 };

int limit(int value)
{
	use(limits);
	if (value > 10)
		return -1;
	return value;
}
