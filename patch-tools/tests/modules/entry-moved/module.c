#include "livepatch.h"

INIT;
void cleanup_module(void);

/* The first pointer leads behind the start of a function. */
struct module __this_module SECTION(".gnu.linkonce.this_module") = {
	.name = "entry_moved",
	.rest = { (char *)init_module + 1, cleanup_module },
};
static const char info_name[] SECTION(".modinfo") = "name=entry_moved";
static const char info_license[] SECTION(".modinfo") = "license=GPL";
static const char info_vermagic[] SECTION(".modinfo") = "vermagic=6.1.0-50-amd64 SMP preempt mod_unload modversions ";
LIVEPATCH;

static const struct modversion_info versions[] SECTION("__versions") = {
	{ 0xbce1a965, "module_layout" }, { 0xb27de5fe, "klp_enable_patch" },
};

static int new_show(void *m) { return helper(1) + 1; }

static struct klp_func funcs[] = { { .old_name = "cmdline_proc_show", .new_func = new_show }, { } };
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = &__this_module, .objs = objs };

INIT { return klp_enable_patch(&patch); }
void cleanup_module(void) { }
