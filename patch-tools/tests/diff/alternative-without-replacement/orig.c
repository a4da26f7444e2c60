#include "kernel.h"

int fence(int value)
{
	ALTERNATIVE("lfence", "", 80);
	return value;
}

int barrier(int value)
{
	ALTERNATIVE("nop; nop; nop; nop; nop", "call slow_barrier", 81);
	return value + 1;
}

int plain(int value)
{
	ALTERNATIVE("mfence", "", 82);
	return outside(value);
}
