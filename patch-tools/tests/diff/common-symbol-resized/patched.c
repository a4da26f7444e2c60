/* options: -fcommon */
#include "kernel.h"

int counter[2];

int first(int value)
{
	return outside(counter[1]) + value;
}
