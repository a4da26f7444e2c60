#include "kernel.h"

/* As the body of a system call: `inline` of the kernel implies `notrace`, and it is called twice. */
static noinline notrace long do_call(int first, int second)
{
	if (outside(first) < 0)
		return -14;
	return outside(second) + first + second;
}

static noinline notrace long between(int first)
{
	return do_call(first, 7) * 2;
}

long native_call(const long *registers)
{
	return do_call(registers[14], registers[13]) + 1;
}

long compat_call(const long *registers)
{
	return do_call(registers[5], registers[11]) + 2;
}

long further(int value)
{
	return between(outside(value)) + 3;
}

long other(int value)
{
	return outside(value) + 4;
}
