#include "kernel.h"

/* As KVM did before 4.19: where a fault goes on a function is called that does not return. */
#define GUARDED(instruction) \
	asm volatile("666: " instruction "\n668:\n" \
		".pushsection .fixup, \"ax\"\n667: cmpb $0, rebooting(%%rip)\n jne 668b\n pushq $666b\n" \
		" call spurious_fault\n .popsection\n" \
		".pushsection __ex_table, \"a\"\n .balign 4\n .long 666b - .\n .long 667b - .\n .popsection" \
		: : : "memory", "eax")

int one(int value)
{
	GUARDED("movl (%%rdi), %%eax");
	return outside(value);
}

int two(int value)
{
	GUARDED("movl 4(%%rdi), %%eax");
	GUARDED("movl 16(%%rdi), %%eax");
	return outside(value) + 1;
}

int three(int value)
{
	GUARDED("movl 8(%%rdi), %%eax");
	return outside(value) + 2;
}
