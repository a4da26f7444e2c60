#include "kernel.h"

static const char __UNIQUE_ID_author1[] __used __section(".modinfo") = "author=Nobody";

int show(int value)
{
	return outside(value) + 1;
}
