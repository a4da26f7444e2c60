#include "kernel.h"

int rare(int value)
{
	return outside(value) + 1;
}
