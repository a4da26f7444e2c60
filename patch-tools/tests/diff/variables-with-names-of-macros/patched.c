#include "kernel.h"

int limit(int value)
{
	static int descriptor;
	static int _entry;
	static int _rs;

	if (++descriptor > 10)
		return -2;
	_rs += value;
	use(&_entry);
	use(&_rs);
	return value;
}
