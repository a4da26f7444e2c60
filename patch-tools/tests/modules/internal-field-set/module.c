#include "livepatch.h"

MODULE("internal_field_set");
LIVEPATCH;

static int new_show(void *m) { return helper(1) + 1; }

static struct klp_func funcs[] = { { .old_name = "cmdline_proc_show", .new_func = new_show, .nop = 1 }, { } };
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = &__this_module, .objs = objs };

INIT { return klp_enable_patch(&patch); }
