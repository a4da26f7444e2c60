#include "kernel.h"

static noinline int handler(int value)
{
	return outside(value) + 2;
}

void install(void)
{
	use(handler);
	handler(3);
	printk("installed the handler\n");
}
