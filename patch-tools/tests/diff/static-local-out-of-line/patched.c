#include "kernel.h"

static noinline int next_id(void)
{
	static int id = 40;

	return outside(id++);
}

int take(int value)
{
	return next_id() + value * 2;
}
