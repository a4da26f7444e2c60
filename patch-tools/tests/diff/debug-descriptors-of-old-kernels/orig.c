#include "kernel.h"

/* `pr_debug` as it was from 3.10 to 5.8: the descriptors have another section. */
struct descriptor {
	const char *module, *function, *file, *format;
	unsigned int line : 18, flags : 8;
} __attribute__((aligned(8)));
#define pr_debug(text) do { \
	static struct descriptor descriptor __used __section("__verbose") \
		= { "unit", __func__, __FILE__, text, __LINE__, 0 }; \
	if (unlikely(descriptor.flags & 1)) \
		__dynamic_pr_debug(&descriptor, text); \
} while (0)

void __dynamic_pr_debug(struct descriptor *descriptor, const char *format, ...);

int first(int value)
{
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
