#include "kernel.h"

int show(int value)
{
	static struct { } __key;
	static char buffer[16];
	static const int powers[] = { 1, 10, 100, 1000, 10000 };

	use(&__key);
	use(buffer);
	use(powers);
	use(__func__);
	return value + 1;
}

int keyed(int value)
{
	static struct { } __key;
	static char buffer[16];

	use(&__key);
	use(buffer);
	return value;
}
