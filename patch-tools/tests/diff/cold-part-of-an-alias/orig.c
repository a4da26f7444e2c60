#include "kernel.h"

void __attribute__((cold)) complain(int value);

/* As module_init() does with a function that is not __init: the global alias is what the function is known by. */
static int set_up(void)
{
	int value = outside(4);

	if (value > 100) {
		complain(value);
		complain(value + 1);
		value = outside(value);
	}
	return value;
}
int init_module(void) __attribute__((alias("set_up")));
