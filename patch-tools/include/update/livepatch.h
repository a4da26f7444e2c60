/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For authors of livepatches: callbacks, shadow variables, and what to replace, to leave alone or to accept.
 *
 * patch-tools build makes it available to every patched file as
 *
 *	#include <update/livepatch.h>
 *
 * Nothing here exists in the running kernel: the macros leave marks in sections that patch-tools reads and
 * drops. docs/building-livepatches.md has an example of each.
 */
#ifndef UPDATE_LIVEPATCH_H
#define UPDATE_LIVEPATCH_H

#include <linux/livepatch.h>

/*
 * Callbacks of the object (vmlinux or a module) that the file is part of; one of each kind per object.
 *
 *	int  pre_patch(struct klp_object *obj)	 before its functions are replaced; non-zero refuses the patch
 *	void post_patch(struct klp_object *obj)	 once every task runs the new functions
 *	void pre_unpatch(struct klp_object *obj)  before the old functions come back
 *	void post_unpatch(struct klp_object *obj) once every task runs the old functions
 *
 * If pre_patch succeeded and the patch is reversed before it is complete, post_unpatch is called. With
 * --replace, callbacks of the livepatches that are replaced are not called.
 */
#define LIVEPATCH_PRE_PATCH(function)		_LIVEPATCH_CALLBACK(int, pre_patch, function)
#define LIVEPATCH_POST_PATCH(function)		_LIVEPATCH_CALLBACK(void, post_patch, function)
#define LIVEPATCH_PRE_UNPATCH(function)		_LIVEPATCH_CALLBACK(void, pre_unpatch, function)
#define LIVEPATCH_POST_UNPATCH(function)	_LIVEPATCH_CALLBACK(void, post_unpatch, function)

/* Replace a function although its code is the same, for example to have its callers see a new callee. */
#define LIVEPATCH_FORCE(function)		_LIVEPATCH_MARK(force, function)

/* Leave a function alone although its code differs. You answer for the difference. */
#define LIVEPATCH_IGNORE(function)		_LIVEPATCH_MARK(ignore, function)

/*
 * Let a type have another layout, as in LIVEPATCH_LAYOUT(struct request). You answer for it that old and new functions
 * never meet an object that the other made: none outlives the transition, or callbacks wait until none is left. The
 * type is named as the refusal names it.
 */
#define LIVEPATCH_LAYOUT(type)			_LIVEPATCH_LAYOUT(type, __COUNTER__)

/*
 * A variable attached to an object that has no room for it, instead of a new field in its structure.
 *
 *	LIVEPATCH_SHADOW(retries, u32, 0x7e7a0001)
 *
 * declares
 *
 *	u32 *retries_get(void *object)			NULL if the object has none
 *	u32 *retries_get_or_alloc(void *object, gfp_t)	a new one is zero; NULL without memory
 *	void retries_free(void *object)			to be called where the object is freed
 *	void retries_free_all(void)			to be called in a post_unpatch callback
 *
 * Ids are shared by all livepatches; two versions of one livepatch use the same.
 */
#define LIVEPATCH_SHADOW(name, type, id)					\
static __always_inline __maybe_unused type *name##_get(void *object)		\
{										\
	return klp_shadow_get(object, id);					\
}										\
static __always_inline __maybe_unused type *name##_get_or_alloc(void *object, gfp_t flags) \
{										\
	/* klp_shadow_get_or_alloc() zeroes what it allocates. */		\
	return klp_shadow_get_or_alloc(object, id, sizeof(type), flags, NULL, NULL); \
}										\
static __always_inline __maybe_unused void name##_free(void *object)		\
{										\
	klp_shadow_free(object, id, NULL);					\
}										\
static __always_inline __maybe_unused void name##_free_all(void)		\
{										\
	klp_shadow_free_all(id, NULL);						\
}

/* The pointer's type makes the compiler check the function's. */
#define _LIVEPATCH_CALLBACK(result, kind, function)				\
	static result (*const __livepatch_##kind)(struct klp_object *) __used	\
		__section(".update.callbacks." #kind) = function

#define _LIVEPATCH_MARK(kind, function)						\
	static void *const __livepatch_##kind##_##function __used		\
		__section(".update." #kind) = function

#define _LIVEPATCH_LAYOUT(type, number)						\
	static const char __PASTE(__livepatch_layout_, number)[] __used		\
		__section(".update.layout") = #type

#endif
