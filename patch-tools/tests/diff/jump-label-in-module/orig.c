#include "kernel.h"

extern struct static_key feature_key;

int fast(int value)
{
	if (STATIC_BRANCH(&feature_key))
		return outside(value);
	return value + 1;
}
