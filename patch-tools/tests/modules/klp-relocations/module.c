/* The test renames section and symbol (the assembler takes no comma) and marks both, as no linker does. */
#include "livepatch.h"

MODULE("klp_relocations");
LIVEPATCH;

extern int hidden(int) __asm__(".klp.sym.vmlinux.proc_cmdline_helper_2");

__attribute__((section(".text.replacement"))) static int new_show(void *m) { return hidden(1) + 1; }

static struct klp_func funcs[] = { { .old_name = "cmdline_proc_show", .new_func = new_show }, { } };
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = &__this_module, .objs = objs };

INIT { return klp_enable_patch(&patch); }
