#include "kernel.h"

int offered(int value)
{
	return outside(value);
}
EXPORT(offered, "", "PRIVATE");

int second(int value)
{
	return outside(value) + 1;
}
EXPORT_SYMBOL_GPL(second);
