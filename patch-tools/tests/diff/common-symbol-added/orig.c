/* options: -fcommon */
#include "kernel.h"

int counter;

int first(int value)
{
	return outside(counter) + value;
}
