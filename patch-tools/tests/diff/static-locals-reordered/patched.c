#include "kernel.h"

int both(int value)
{
	if (likely(value <= 3)) {
		static int last;

		last += value;
		outside(last + 1);
		use(&last);
	} else if (unlikely(value == 900)) {
		static int last;

		last = 9;
		use(&last);
	} else {
		static int last;

		last += value;
		outside(last + 1);
	}
	return value;
}
