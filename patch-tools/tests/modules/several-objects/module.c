#include "livepatch.h"

MODULE("several_objects");
LIVEPATCH;

static int new_one(void) { return helper(1) + 1; }
static int new_two(void) { return helper(2) + 2; }
static int new_three(void) { return helper(3) + 3; }
static int before(void *object) { return helper(4); }
static void after(void *object) { helper(5); }

static struct klp_func kernel[] = {
	{ .old_name = "cmdline_proc_show", .new_func = new_one },
	{ .old_name = "version_proc_show", .new_func = new_two, .old_sympos = 2 },
	{ }
};
static struct klp_func loop[] = { { .old_name = "lo_release", .new_func = new_three }, { } };
static struct klp_object objs[] = {
	{ .funcs = kernel, .callbacks = { .pre_patch = before, .post_unpatch = after } },
	{ .name = "loop", .funcs = loop },
	{ }
};
static struct klp_state states[] = { { .id = 7, .version = 3 }, { } };
static struct klp_patch patch = { .mod = &__this_module, .objs = objs, .states = states, .replace = 1 };

/* The argument is loaded well before the call. */
INIT { return helper(6) ? klp_enable_patch(&patch) : -12; }
