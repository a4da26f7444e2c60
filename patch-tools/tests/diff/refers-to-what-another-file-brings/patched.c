#include "kernel.h"

int checked(int value);

int target(int value)
{
	return checked(outside(value)) + 1;
}
