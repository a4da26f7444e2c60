#include "kernel.h"

static int __read_mostly first = 1;
static int __read_mostly between = 8;
static int __read_mostly second = 2;

int total(int value)
{
	use(&first);
	use(&between);
	use(&second);
	return first + second + value;
}
