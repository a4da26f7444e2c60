#include "kernel.h"

static struct static_key old_key;

int fast(int value)
{
	if (STATIC_BRANCH(&old_key))
		return outside(value);
	return value + 1;
}
