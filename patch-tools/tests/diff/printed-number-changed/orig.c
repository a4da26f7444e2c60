#include "kernel.h"

int report(int value)
{
	_printk("%s: limit %d exceeded by %d\n", "limits", 16, value);
	return value;
}
