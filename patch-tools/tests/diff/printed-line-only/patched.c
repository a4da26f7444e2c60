#include "kernel.h"

/* Moves the line. */
int report(int value)
{
	_printk("%s:%d: odd value %d\n", __FILE__, __LINE__, value);
	return value;
}
