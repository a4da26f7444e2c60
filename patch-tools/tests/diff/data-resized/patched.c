#include "kernel.h"

static int limits[5] = { 1, 2, 3, 4 };
static const int powers[4] = { 1, 10, 100, 1000 };
static int level;

int check(int value)
{
	use(&limits);
	use(&level);
	return limits[value & 3] + powers[(value >> 2) & 3] + level;
}
