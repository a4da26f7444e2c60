#include "kernel.h"

int release(int value);

int show(int value)
{
	return outside(value) + release(value);
}
