#include "kernel.h"

int choose(int value)
{
	switch (value) {
	case 0: return outside(1);
	case 1: return outside(12) + 4;
	case 2: printk("two\n"); return 3;
	case 3: return outside(9) * 5;
	case 4: printk("four\n"); return 11;
	case 5: return outside(15) - 4;
	case 6: set_level(2); return 0;
	}
	return -1;
}

int pick(int value)
{
	switch (value) {
	case 0: return outside(2);
	case 1: return outside(13) + 4;
	case 2: printk("second\n"); return 3;
	case 3: return outside(10) * 5;
	case 4: printk("fourth\n"); return 11;
	case 5: return outside(16) - 4;
	case 6: set_level(3); return 0;
	}
	return -2;
}
