#include "kernel.h"

int call_site(int value)
{
	STATIC_CALL(__SCK__chosen, __SCT__chosen);
	return value + 1;
}
