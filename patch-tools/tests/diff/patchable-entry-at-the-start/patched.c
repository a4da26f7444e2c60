#include "kernel.h"

notrace __attribute__((patchable_function_entry(5, 0))) int padded(int value)
{
	return outside(value + 1);
}

notrace __attribute__((patchable_function_entry(5, 0))) int other(int value)
{
	return outside(value) * 3;
}
