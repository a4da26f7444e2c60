#include "kernel.h"

static int users;

int get(int value)
{
	LOCKED_INC(users);
	use(&users);
	return value;
}

int get_twice(int value)
{
	LOCKED_INC(users);
	LOCKED_INC(users);
	return value + 1;
}
