#include "kernel.h"

#define TEXT(line) #line
#define LINE(line) TEXT(line)

/* Moves the line. */
int report(int value)
{
	_printk("field \"name\" at " __FILE__ ":" LINE(__LINE__) ": %d bytes\n", value);
	return value;
}
