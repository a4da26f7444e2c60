#include "kernel.h"

int show(int value)
{
	printk("value %d\n", value);
	return value + 2;
}

static int before(void *object)
{
	return outside(4);
}
UPDATE_MARK("callbacks.pre_patch", before);

static void after(void *object)
{
	set_level(3);
}
UPDATE_MARK("callbacks.post_unpatch", after);

int other(int value)
{
	return outside(value) * 3;
}
