#include "kernel.h"

static inline notrace int settle(int *value)
{
	if (likely(*value == 0))
		return 0;
	outside(*value + 1) ? set_level(1) : use(value + 1);
	outside(*value + 2) ? set_level(2) : use(value + 2);
	outside(*value + 3) ? set_level(3) : use(value + 3);
	outside(*value + 4) ? set_level(4) : use(value + 4);
	outside(*value + 5) ? set_level(5) : use(value + 5);
	outside(*value + 6) ? set_level(6) : use(value + 6);
	outside(*value + 7) ? set_level(7) : use(value + 7);
	outside(*value + 8) ? set_level(8) : use(value + 8);
	outside(*value + 9) ? set_level(9) : use(value + 9);
	outside(*value + 10) ? set_level(10) : use(value + 10);
	outside(*value + 11) ? set_level(11) : use(value + 11);
	outside(*value + 12) ? set_level(12) : use(value + 12);
	outside(*value + 13) ? set_level(13) : use(value + 13);
	outside(*value + 14) ? set_level(14) : use(value + 14);
	outside(*value + 15) ? set_level(15) : use(value + 15);
	return outside(*value) + 1;
}

int one(int *value)
{
	return settle(value) * 2;
}

int two(int *value)
{
	return settle(value + 1) * 3;
}

int three(int *value)
{
	return outside(*value);
}
