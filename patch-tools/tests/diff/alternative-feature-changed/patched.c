#include "kernel.h"

int fence(int value)
{
	ALTERNATIVE("lfence", "mfence", 79);
	return value;
}

int barrier(int value)
{
	ALTERNATIVE("nop; nop; nop; nop; nop", "call slow_barrier", 81);
	return value + 1;
}
