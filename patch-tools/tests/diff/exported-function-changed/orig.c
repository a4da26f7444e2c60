#include "kernel.h"

int offered(int value)
{
	return outside(value);
}
EXPORT_SYMBOL(offered);

int second(int value)
{
	return outside(value) + 1;
}
EXPORT_SYMBOL_GPL(second);
