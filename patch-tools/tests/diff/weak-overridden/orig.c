#include "kernel.h"

int __weak arch_value(int value)
{
	return outside(value);
}
