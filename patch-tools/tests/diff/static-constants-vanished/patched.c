#include "kernel.h"

int show(unsigned int value)
{
	return printk("d");
}
