#include "kernel.h"

/* From 6.5 on modpost makes the tables, of what is marked here. */
#undef EXPORT
#define EXPORT(symbol, licence, space) \
	asm(".pushsection \".export_symbol\", \"a\"\n" \
		"__export_symbol_" #symbol ": .asciz \"" licence "\"\n .asciz \"" space "\"\n .balign 8\n" \
		" .quad " #symbol "\n .popsection")

int offered(int value)
{
	return outside(value);
}
EXPORT(offered, "", "");

int second(int value)
{
	return outside(value) + 2;
}
EXPORT(second, "GPL", "SPACE");
