#include "livepatch.h"

MODULE("name_without_end");
LIVEPATCH;

static int new_show(void *m) { return helper(1) + 1; }

static const char name[4] SECTION(".rodata.name") = "show";
static struct klp_func funcs[] = { { .old_name = name, .new_func = new_show }, { } };
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = &__this_module, .objs = objs };

INIT { return klp_enable_patch(&patch); }
