#include "kernel.h"

struct operations { int (*call)(int value); const char *name; void *more; };

static int call(int value)
{
	return outside(value);
}

static struct operations more_operations = { call, "x" };

int attach(int value)
{
	use(&more_operations);
	return value;
}
