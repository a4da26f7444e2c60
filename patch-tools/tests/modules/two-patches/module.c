#include "livepatch.h"

MODULE("two_patches");
LIVEPATCH;

static int new_show(void *m) { return helper(1) + 1; }

static struct klp_func funcs[] = { { .old_name = "cmdline_proc_show", .new_func = new_show }, { } };
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch shown = { .mod = &__this_module, .objs = objs };
static struct klp_patch hidden = { .mod = &__this_module, .objs = objs };

INIT { return klp_enable_patch(&shown) + klp_enable_patch(&hidden); }
