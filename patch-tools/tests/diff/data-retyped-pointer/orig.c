#include "kernel.h"

static int step_one(int value)
{
	return outside(value);
}

static int step_two(int value)
{
	return outside(value) + 1;
}

struct steps { int (*step)(int); };
struct steps steps = { .step = step_one };
struct steps spare = { .step = step_two };

int run(int value)
{
	return steps.step(value);
}
