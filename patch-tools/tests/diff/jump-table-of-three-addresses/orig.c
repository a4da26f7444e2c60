#include "kernel.h"

struct static_key key;

/* Three absolute addresses, as before 4.19. */
#define OLD_BRANCH(key) ({ \
	__label__ yes, out; int taken = 0; \
	asm goto("1: .byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n" \
		".pushsection __jump_table, \"aw\"\n .balign 8\n .quad 1b, %l[yes], %c0\n .popsection" : : "i" (key) : : yes); \
	goto out; yes: taken = 1; out: taken; })

int one(int value)
{
	if (OLD_BRANCH(&key))
		set_level(1);
	return outside(value);
}

int two(int value)
{
	if (OLD_BRANCH(&key))
		set_level(2);
	return outside(value) + 1;
}
