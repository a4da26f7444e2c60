/* options: -fsanitize=shift */
#include "kernel.h"

/* Moves the lines. */
int shifted(int value, int by)
{
	return outside(value << by);
}

int twice(int value, int by)
{
	return outside(value >> by) + 1;
}
