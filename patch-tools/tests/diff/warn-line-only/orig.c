#include "kernel.h"

int checked(int value)
{
	WARN_ON(value > 100);
	return value + 1;
}
