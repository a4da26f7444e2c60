#include "kernel.h"

extern struct static_key __tracepoint_loop_event;

int fast(int value)
{
	if (STATIC_BRANCH(&__tracepoint_loop_event))
		return outside(value);
	return value + 1;
}
