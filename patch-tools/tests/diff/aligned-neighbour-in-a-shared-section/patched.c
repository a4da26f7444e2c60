#include "kernel.h"

static int other __section(".data..ro_after_init") __attribute__((aligned(64))) = 7;
static long limit __section(".data..ro_after_init") = 5;

int show(int value)
{
	use(&other);
	return outside(value) + other > limit;
}

void tune(void)
{
	use(&limit);
}
