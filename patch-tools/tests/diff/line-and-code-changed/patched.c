#include "kernel.h"

/* Moves the line. */
int sleeps(int value)
{
	might_sleep();
	return outside(value + 1);
}
