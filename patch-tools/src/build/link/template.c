/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The part of a livepatch module that is the same for every patch of a kernel. Compiled once per kernel by
 * patch-tools with the flags of the kernel's own modules; the tables and the module's name come from there.
 */
#define INCLUDE_VERMAGIC

#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/stddef.h>
#include <linux/vermagic.h>
#if defined(CONFIG_UNWINDER_ORC) && __has_include(<asm/orc_header.h>)
#include <asm/orc_header.h>
ORC_HEADER;
#endif

/* Defined in the object that patch-tools writes for each patch. */
extern struct klp_patch livepatch_tables;

static int __init livepatch_init(void)
{
	return klp_enable_patch(&livepatch_tables);
}

/* The kernel calls it only after the patch was disabled and every task has left the new code. */
static void __exit livepatch_exit(void)
{
}

module_init(livepatch_init);
module_exit(livepatch_exit);

MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_INFO(vermagic, VERMAGIC_STRING);
/* The second is the first from 6.9 on. */
#if defined(CONFIG_RETPOLINE) || defined(CONFIG_MITIGATION_RETPOLINE)
MODULE_INFO(retpoline, "Y");
#endif

/* What scripts/mod/modpost.c writes for every module. */
__visible struct module __this_module __section(".gnu.linkonce.this_module") = {
	.init = init_module,
#ifdef CONFIG_MODULE_UNLOAD
	.exit = cleanup_module,
#endif
	.arch = MODULE_ARCH_INIT,
};

/*
 * Where the fields are, for patch-tools. In the order of `Layout` in template.rs. The kernel's linker script
 * for modules discards the section.
 */
const unsigned int livepatch_layout[] __section(".discard.livepatch_layout") __used = {
	sizeof(struct klp_patch),
	offsetof(struct klp_patch, mod),
	offsetof(struct klp_patch, objs),
	offsetof(struct klp_patch, replace),
	sizeof(struct klp_object),
	offsetof(struct klp_object, name),
	offsetof(struct klp_object, funcs),
	offsetof(struct klp_object, callbacks.pre_patch),
	offsetof(struct klp_object, callbacks.post_patch),
	offsetof(struct klp_object, callbacks.pre_unpatch),
	offsetof(struct klp_object, callbacks.post_unpatch),
	sizeof(struct klp_func),
	offsetof(struct klp_func, old_name),
	offsetof(struct klp_func, new_func),
	offsetof(struct klp_func, old_sympos),
	offsetof(struct module, name),
	sizeof(((struct module *)0)->name),
};
