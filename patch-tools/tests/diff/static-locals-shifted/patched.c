#include "kernel.h"

void first(int *value);
void second(int *value);
void third(int *value);

int count(int value)
{
	{
		static int seen;

		second(&seen);
	}
	{
		static int seen;

		third(&seen);
	}
	return value;
}
