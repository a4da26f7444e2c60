#include "livepatch.h"

MODULE("one_function");
LIVEPATCH;

static const struct modversion_info versions[] SECTION("__versions") = {
	{ 0xbce1a965, "module_layout" }, { 0xb27de5fe, "klp_enable_patch" },
};

static int new_show(void *m) { return helper(1) + 1; }

static struct klp_func funcs[] = { { .old_name = "cmdline_proc_show", .new_func = new_show }, { } };
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = &__this_module, .objs = objs };

INIT { return klp_enable_patch(&patch); }
