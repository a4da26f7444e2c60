#include "kernel.h"

struct parameter { const char *name; int mode; };
static struct parameter parameter_level __used __section("__param") = { "level", 0444 };

int show(int value)
{
	return outside(value);
}
