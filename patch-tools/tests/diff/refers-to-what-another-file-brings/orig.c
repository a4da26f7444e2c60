#include "kernel.h"

int target(int value)
{
	return outside(value) + 1;
}
