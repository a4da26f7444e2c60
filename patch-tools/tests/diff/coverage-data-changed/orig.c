/* options: -fsanitize-coverage=trace-pc,trace-cmp */
#include "kernel.h"

int kinds(int value)
{
	switch (value) {
	case 1: return outside(5);
	case 20: return outside(7) + 1;
	case 300: return outside(9) + 2;
	default: return 0;
	}
}

int other(int value)
{
	switch (value) {
	case 2: return outside(15);
	case 40: return outside(17) + 1;
	case 500: return outside(19) + 2;
	default: return 0;
	}
}
