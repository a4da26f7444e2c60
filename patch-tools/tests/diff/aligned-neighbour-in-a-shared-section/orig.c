#include "kernel.h"

static long limit __section(".data..ro_after_init") = 5;

int show(int value)
{
	return outside(value) > limit;
}

void tune(void)
{
	use(&limit);
}
