#include "kernel.h"

static const char __UNIQUE_ID_author1[] __used __section(".modinfo") = "author=Somebody";

int show(int value)
{
	return outside(value);
}
