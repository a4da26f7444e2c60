#include "kernel.h"

/* `pr_debug` as from 6.19 on: the counter stands behind an underscore. */
struct descriptor {
	const char *module, *function, *file, *format;
	unsigned int line : 18, class : 6, flags : 8;
	void *key[2];
} __attribute__((aligned(8)));
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define pr_debug_as(name, text) do { \
	static struct descriptor name __used __section("__dyndbg") \
		= { "unit", __func__, __FILE__, text, __LINE__, 63, 0 }; \
	if (STATIC_BRANCH(&debugging)) \
		__dynamic_pr_debug(&name, text); \
} while (0)
#define pr_debug(text) pr_debug_as(PASTE(__UNIQUE_ID_ddebug_, __COUNTER__), text)

extern struct static_key debugging;
void __dynamic_pr_debug(struct descriptor *descriptor, const char *format, ...);

int first(int value)
{
	pr_debug("first\n");
	return outside(value) + 1;
}

int second(int value)
{
	pr_debug("second\n");
	return outside(value) + 2;
}

int third(int value)
{
	pr_debug("third\n");
	pr_debug("and last\n");
	return outside(value) + 3;
}
