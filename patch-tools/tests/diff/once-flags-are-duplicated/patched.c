#include "kernel.h"

int noisy(int value)
{
	static _Bool __section(".data.once") __already_done;
	static int _rs = 5;

	if (!__already_done) {
		__already_done = 1;
		printk("%s: once\n", __func__);
	}
	_rs--;
	use(&_rs);
	use(__func__);
	return value + 1;
}
