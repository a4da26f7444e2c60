#include "kernel.h"

int api_of_other(int value);

int show(int value)
{
	return outside(value) + api_of_other(value);
}
