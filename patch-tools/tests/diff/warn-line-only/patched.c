#include "kernel.h"

/* One more line,
 * and another. */
int checked(int value)
{
	WARN_ON(value > 100);
	return value + 1;
}
