#include "kernel.h"

static noinline int handler(int value)
{
	return outside(value) + 1;
}

void install(void)
{
	use(handler);
	handler(3);
	printk("installed\n");
}
