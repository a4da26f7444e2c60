/* What kpatch-build leaves; the code that turns it into a struct klp_patch is of no interest to the reader. */
#include "livepatch.h"

MODULE("kpatch_tables");
LIVEPATCH;

struct kpatch_patch_func {
	ulong new_addr, new_size, old_addr, old_size, sympos;
	const char *name, *objname;
};
struct kpatch_callback { void *callback; const char *objname; };

static int new_show(void *m) { return helper(1) + 1; }
static int new_release(void *m) { return helper(2) + 2; }
static int before(void *object) { return helper(3); }

struct kpatch_patch_func functions[] SECTION(".kpatch.funcs") = {
	{ (ulong)new_show, 20, 0, 0, 0, "cmdline_proc_show", "vmlinux" },
	{ (ulong)new_release, 20, 0, 0, 2, "lo_release", "loop" },
};
struct kpatch_callback callback SECTION(".kpatch.callbacks.pre_patch") = { before, "loop" };
void *forced SECTION(".kpatch.force") = new_show;

INIT { return klp_enable_patch(0); }
