#include "kernel.h"

/* A reference count that overflows, as from 4.13 to 5.4: the place is told out of line, and it goes on. */
#define REF_INC(counter) \
	asm volatile("lock; incl %0\n js 111f\n" \
		".pushsection .text..refcount, \"ax\"\n111: lea %0, %%rcx\n112: .byte 0x0f, 0x0b\n .popsection\n" \
		"113:\n" \
		".pushsection __ex_table, \"a\"\n .balign 4\n .long 112b - .\n .long 113b - .\n" \
		" .long handle_refcount - .\n .popsection" : "+m" (*(counter)) : : "cc", "cx")

int one(int *counter)
{
	REF_INC(counter);
	return outside(*counter);
}

int two(int *counter)
{
	REF_INC(counter + 1);
	return outside(*counter) + 1;
}

int three(int *counter)
{
	REF_INC(counter + 2);
	REF_INC(counter + 3);
	return outside(*counter) + 2;
}
