#include "kernel.h"

int show(int value)
{
	use(L"SecureBoot");
	return value + 2;
}

int other(int value)
{
	use(L"SetupMode");
	return value;
}
