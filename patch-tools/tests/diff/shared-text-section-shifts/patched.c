#include "kernel.h"

__sched int before(int value)
{
	outside(value);
	outside(value + 1);
	outside(value + 2);
	return outside(value) + 1;
}

static noinline __sched int wait_a_bit(int value)
{
	return outside(value) + 1;
}

__sched int wait_long(int value)
{
	return wait_a_bit(value) * 2;
}
