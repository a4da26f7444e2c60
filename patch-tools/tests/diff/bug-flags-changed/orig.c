#include "kernel.h"

int checked(int value)
{
	if (unlikely(value > 100))
		BUG_ENTRY(0x901);
	return value + 1;
}
