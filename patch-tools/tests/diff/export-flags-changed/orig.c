#include "kernel.h"

/* As 7.0 does it: one table of symbols, and flags beside it. */
#define FLAGS(symbol, flags) \
	asm(".pushsection \"___kflagstab+" #symbol "\", \"a\"\n__flags_" #symbol ": .byte " #flags "\n .popsection")

int first(int value)
{
	return outside(value);
}
EXPORT_SYMBOL(first);
FLAGS(first, 0);

int second(int value)
{
	return outside(value) + 1;
}
EXPORT_SYMBOL(second);
FLAGS(second, 1);
