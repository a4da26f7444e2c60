/* options: -fcommon */
#include "kernel.h"

int counter;
int fresh;

int first(int value)
{
	return outside(counter) + value + fresh;
}
