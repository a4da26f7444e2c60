#include "kernel.h"

int sleeps(int value)
{
	might_sleep();
	return outside(value);
}
