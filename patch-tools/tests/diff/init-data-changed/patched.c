#include "kernel.h"

static int first __initdata = 5;

static int __init setup(void)
{
	use(&first);
	printk("set up %d\n", outside(first));
	return 0;
}
module_init(setup);

int later(int value)
{
	return outside(value);
}
