#include "kernel.h"

static int first __initdata = 4;

static int __init setup(void)
{
	use(&first);
	return outside(first);
}
module_init(setup);

int later(int value)
{
	return outside(value) + first;
}
