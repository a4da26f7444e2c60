/* What klp-build leaves; the code that turns it into a struct klp_patch is of no interest to the reader. */
#include "livepatch.h"

MODULE("klp_build_tables");
LIVEPATCH;

struct klp_func_ext { const char *old_name; void *new_func; ulong sympos; };
struct klp_object_ext {
	const char *name;
	struct klp_func_ext *funcs;
	struct klp_callbacks callbacks;
	unsigned int nr_funcs;
};

static int new_show(void *m) { return helper(1) + 1; }
static int new_release(void *m) { return helper(2) + 2; }
static int before(void *object) { return helper(3); }

struct klp_func_ext functions[] SECTION("__klp_funcs") = {
	{ "cmdline_proc_show", new_show, 1 }, { "lo_release", new_release, 0 },
};
struct klp_object_ext objects[] SECTION("__klp_objects") = {
	{ .funcs = functions, .nr_funcs = 1 },
	{ .name = "loop", .funcs = functions + 1, .callbacks = { .pre_patch = before }, .nr_funcs = 1 },
};

INIT { return klp_enable_patch(0); }
