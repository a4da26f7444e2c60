/* options: -fsanitize=shift */
#include "kernel.h"

int shifted(int value, int by)
{
	return outside(value << by);
}

int twice(int value, int by)
{
	return outside(value >> by) + 1;
}
