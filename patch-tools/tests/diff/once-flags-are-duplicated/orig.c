#include "kernel.h"

int noisy(int value)
{
	static _Bool __section(".data.once") __already_done;
	static struct { int lock, interval, burst, printed, missed; ulong begin, flags; } _rs = { 0, 5, 10 };

	if (!__already_done) {
		__already_done = 1;
		printk("%s: once\n", __func__);
	}
	_rs.printed++;
	use(&_rs);
	use(__func__);
	return value;
}
