#include "livepatch.h"

MODULE("pointer_without_relocation");
LIVEPATCH;

static int new_show(void *m) { return helper(1) + 1; }

static struct klp_func funcs[] = { { .old_name = (const char *)0x1234, .new_func = new_show }, { } };
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = &__this_module, .objs = objs };

INIT { return klp_enable_patch(&patch); }
