#include "kernel.h"

const char *const name = "other";

const char *get(void)
{
	return name + outside(1);
}

const char *const *where(void)
{
	return &name;
}
