#include "kernel.h"

int thing(int value)
{
	return outside(value);
}

int use_it(int value)
{
	return thing(value);
}
