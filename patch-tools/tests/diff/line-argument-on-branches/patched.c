#include "kernel.h"

/* Moves the line. */
int sleeps(int value)
{
	if (value) {
		might_sleep();
		outside(value);
	} else {
		might_sleep();
		outside(3);
	}
	return 0;
}
