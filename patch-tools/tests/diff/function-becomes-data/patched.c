#include "kernel.h"

int thing = 4;

int use_it(int value)
{
	return outside(value) + thing;
}
