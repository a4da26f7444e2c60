#include "kernel.h"

#define TEXT(line) #line
#define LINE(line) TEXT(line)

const char *place(void)
{
	return "at " __FILE__ ":" LINE(__LINE__);
}
