#include "kernel.h"

const char *const name = "first";

const char *get(void)
{
	return name + outside(1);
}

const char *const *where(void)
{
	return &name;
}
