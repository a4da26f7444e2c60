#include "kernel.h"

int show(int value)
{
	printk("value %d\n", value);
	return value + 2;
}

static int before(void *object)
{
	return outside(4);
}
static void *__kpatch_pre_patch_data __used __section(".kpatch.callbacks.pre_patch") = before;
static void *__klp_pre_patch_callback_vmlinux __used __section(".discard.klp_callback_ptrs") = before;
void *__kpatch_ignore_func_other __section(".kpatch.ignore.functions") = show;
char *__UNIQUE_ID_kpatch_ignore_section_7 __section(".kpatch.ignore.sections") = ".data..percpu";

int other(int value)
{
	return outside(value) * 3;
}
