#include "kernel.h"

/* Moves the line. */
int sleeps(int value)
{
	if (value) {
		might_sleep();
		outside(value);
	} else {
		might_sleep();
		set_level(3);
	}
	return 0;
}
