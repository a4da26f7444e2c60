#include "kernel.h"

/* The table can be written, so it is not the same for everybody. */
long run(const unsigned char *code, long value)
{
	static const void *table[] = { &&add, &&twice, &&end };
	if (!code) {
		table[2] = &&add;
		return 0;
	}
next:
	goto *table[*code++];
add:
	value += 3;
	goto next;
twice:
	value *= 2;
	goto next;
end:
	return value ^ 0x55;
}
