#include "kernel.h"

static int __init setup(void)
{
	printk("set up %d\n", outside(1));
	return 0;
}
module_init(setup);

int later(int value)
{
	return outside(value);
}
