#include "kernel.h"

int peek(int *address)
{
	int failed;

	GUARDED_READ(failed, address, 1);
	return failed;
}

int poke(int *address)
{
	int failed;

	GUARDED_READ(failed, address + 1, 1);
	return outside(failed + 1);
}
