#include "kernel.h"

int show(int value)
{
	use(L"SetupMode!");
	return value + 1;
}

int other(int value)
{
	use(L"SetupMode");
	return value;
}
