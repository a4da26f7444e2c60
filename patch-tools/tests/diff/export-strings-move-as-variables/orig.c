#include "kernel.h"

/* As kernels before 5.7 do it: the strings are variables, and addresses are absolute. */
struct kernel_symbol { unsigned long value; const char *name; };
#define OLD_EXPORT(symbol) \
	static const char __kstrtab_##symbol[] __used __section("__ksymtab_strings") __attribute__((aligned(1))) = #symbol; \
	static const struct kernel_symbol __ksymtab_##symbol __used __section("___ksymtab+" #symbol) = { \
		(unsigned long)&symbol, __kstrtab_##symbol }

int first(int value)
{
	return outside(value);
}
OLD_EXPORT(first);

int second(int value)
{
	return outside(value) + 1;
}
OLD_EXPORT(second);
