#include "kernel.h"

static noinline int handler(int value)
{
	return outside(value) + 2;
}

struct table { int (*first)(int); };
static const struct table table = { .first = handler };

void install(void)
{
	use(&table);
	use(handler);
	handler(3);
	printk("installed\n");
}
