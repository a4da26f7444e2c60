#include "livepatch.h"

MODULE("replacement_in_data");
LIVEPATCH;

static int new_show[4];

static struct klp_func funcs[] = { { .old_name = "cmdline_proc_show", .new_func = new_show }, { } };
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = &__this_module, .objs = objs };

INIT { return klp_enable_patch(&patch); }
