#include "livepatch.h"

MODULE("argument_from_variable");
LIVEPATCH;

static int new_show(void *m) { return helper(1) + 1; }

static struct klp_func funcs[] = { { .old_name = "cmdline_proc_show", .new_func = new_show }, { } };
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = &__this_module, .objs = objs };
struct klp_patch *volatile which = &patch;

INIT { return klp_enable_patch(which); }
