#include "kernel.h"

/* Another file of the kernel has a larger one. */
int __weak noinline arch_value(int value)
{
	return outside(value);
}

/* This one is an alias of something else there. */
void __weak noinline arch_note(int value)
{
	set_level(value);
}

int caller(int value)
{
	arch_note(value);
	return arch_value(value) + 2;
}
