#include "kernel.h"

static int __read_mostly first = 1;
static int __read_mostly second = 2;
static int __read_mostly third = 3;

int total(int value)
{
	use(&first);
	use(&third);
	use(&second);
	return first + second + third + value;
}
