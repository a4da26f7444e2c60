#include "kernel.h"

void __attribute__((cold)) complain(int value);

int work(int value)
{
	if (value > 100) {
		complain(value);
		complain(value + 9);
		return -1;
	}
	return outside(value);
}

int spare(int value)
{
	return outside(value) + 5;
}
