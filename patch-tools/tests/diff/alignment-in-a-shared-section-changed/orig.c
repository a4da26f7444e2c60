#include "kernel.h"

static int other __section(".data..ro_after_init") = 7;
static int limit __section(".data..ro_after_init") = 5;

int show(int value)
{
	return outside(value) + other > limit;
}

void tune(void)
{
	use(&other);
	use(&limit);
}
