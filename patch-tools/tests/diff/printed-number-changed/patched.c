#include "kernel.h"

int report(int value)
{
	_printk("%s: limit %d exceeded by %d\n", "limits", 17, value);
	return value;
}
