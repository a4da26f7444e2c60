#include "kernel.h"

int both(int value)
{
	if (value > 3) {
		static int last;

		outside(last);
		last = value;
	} else {
		static int last;

		last += value;
		outside(last + 1);
	}
	return value;
}
