#include "kernel.h"

static int __init setup(void)
{
	printk("set up %d\n", outside(1));
	return 0;
}
module_init(setup);

static int __init again(void)
{
	return 0;
}
module_init(again);

int later(int value)
{
	return outside(value);
}
