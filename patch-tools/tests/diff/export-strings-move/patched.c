#include "kernel.h"

int added(int value)
{
	return outside(value) * 3;
}
EXPORT_SYMBOL(added);

int first(int value)
{
	return outside(value);
}
EXPORT_SYMBOL(first);

int second(int value)
{
	return outside(value) + 2;
}
EXPORT_SYMBOL_GPL(second);
