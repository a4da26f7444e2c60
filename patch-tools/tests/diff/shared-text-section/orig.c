#include "kernel.h"

static noinline __sched int wait_a_bit(int value)
{
	return outside(value) + 1;
}

__sched int wait_long(int value)
{
	return wait_a_bit(value) * 2;
}

__sched int wait_forever(int value)
{
	return wait_a_bit(value) * 3;
}
