#include "kernel.h"

int show(int value)
{
	printk("value %d\n", value);
	return 0;
}

int tell(int value)
{
	printk("tell %d\n", value);
	return 0;
}
