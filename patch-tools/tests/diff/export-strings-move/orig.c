#include "kernel.h"

int first(int value)
{
	return outside(value);
}
EXPORT_SYMBOL(first);

int second(int value)
{
	return outside(value) + 1;
}
EXPORT_SYMBOL_GPL(second);
