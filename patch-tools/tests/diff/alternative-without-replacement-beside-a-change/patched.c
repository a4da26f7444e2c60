#include "kernel.h"

int fence(int value)
{
	ALTERNATIVE("lfence", "", 80);
	return value;
}

int barrier(int value)
{
	ALTERNATIVE("nop; nop; nop; nop; nop", "call slower_barrier", 81);
	return value + 1;
}
