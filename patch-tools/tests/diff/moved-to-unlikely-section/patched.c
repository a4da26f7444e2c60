#include "kernel.h"

int __attribute__((cold)) rare(int value)
{
	return outside(value) + 1;
}
