#include "kernel.h"

__attribute__((patchable_function_entry(16, 16))) int padded(int value)
{
	return outside(value);
}

__attribute__((patchable_function_entry(16, 16))) int other(int value)
{
	return outside(value) * 3;
}
