#include "kernel.h"

int before(void)
{
	printk("a string before the others\n");
	return 0;
}

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
