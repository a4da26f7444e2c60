#include "livepatch.h"

MODULE("table_without_end");
LIVEPATCH;

static int new_show(void *m) { return helper(1) + 1; }

/* Alone in its section, so that nothing follows the only entry. */
static struct klp_func funcs[] SECTION(".data.functions") = {
	{ .old_name = "cmdline_proc_show", .new_func = new_show },
};
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = &__this_module, .objs = objs };

INIT { return klp_enable_patch(&patch); }
