#include "kernel.h"

/* With the length of padding, as before 5.19. */
#define OTHER_ALTERNATIVE(old, new) \
	asm volatile("661:\n " old "\n662:\n" \
		".pushsection .altinstructions, \"a\"\n .long 661b - .\n .long 663f - .\n .word 80\n .byte 662b - 661b\n .byte 664f - 663f\n .byte 0\n .popsection\n" \
		".pushsection .altinstr_replacement, \"ax\"\n663:\n " new "\n664:\n .popsection" : : : "memory")

int one(int value)
{
	OTHER_ALTERNATIVE("lfence", "mfence");
	return outside(value);
}

int two(int value)
{
	OTHER_ALTERNATIVE("lfence", "");
	OTHER_ALTERNATIVE("mfence", "lfence");
	return outside(value) + 2;
}
