#include "kernel.h"

/* A comment
 * that moves everything below.
 */
int show(int value)
{
	printk("value %d\n", value);
	return value + 1;
}

int other(int value)
{
	return outside(value) * 3;
}
