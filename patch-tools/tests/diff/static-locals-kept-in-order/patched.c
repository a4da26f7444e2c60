#include "kernel.h"

void first(int *value);
void second(int *value);
void third(int *value);

int count(int value)
{
	{
		static int seen;

		first(&seen);
	}
	{
		static int seen;

		second(&seen);
	}
	return value + 1;
}
