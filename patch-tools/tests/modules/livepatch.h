/* The part of a kernel module that the reader looks at, without kernel headers: layouts of Linux 6.1, x86-64. */
typedef unsigned long ulong;

struct kobject { ulong internal[8]; };
struct list_head { void *next, *prev; };

struct klp_func {
	const char *old_name;
	void *new_func;
	ulong old_sympos;
	void *old_func;
	struct kobject kobj;
	struct list_head node, stack_node;
	ulong old_size, new_size;
	_Bool nop, patched, transition;
};

struct klp_callbacks {
	int (*pre_patch)(void *);
	void (*post_patch)(void *);
	void (*pre_unpatch)(void *);
	void (*post_unpatch)(void *);
	_Bool post_unpatch_enabled;
};

struct klp_object {
	const char *name;
	struct klp_func *funcs;
	struct klp_callbacks callbacks;
	struct kobject kobj;
	struct list_head func_list, node;
	void *mod;
	_Bool dynamic, patched;
};

struct klp_state { ulong id; unsigned int version; void *data; };

struct klp_patch {
	void *mod;
	struct klp_object *objs;
	struct klp_state *states;
	_Bool replace;
	ulong internal[21];
};

_Static_assert(sizeof(struct klp_func) == 152 && sizeof(struct klp_object) == 168, "layout of 6.1");

struct module { int state; struct list_head list; char name[56]; void *rest[100]; };
struct modversion_info { ulong crc; char name[56]; };

int klp_enable_patch(struct klp_patch *);
int helper(int);

#define SECTION(name) __attribute__((section(name), used))
#define MODULE(module_name) \
	struct module __this_module SECTION(".gnu.linkonce.this_module") = { .name = module_name }; \
	static const char info_name[] SECTION(".modinfo") = "name=" module_name; \
	static const char info_license[] SECTION(".modinfo") = "license=GPL"; \
	static const char info_vermagic[] SECTION(".modinfo") = "vermagic=6.1.0-50-amd64 SMP preempt mod_unload modversions "
#define LIVEPATCH static const char info_livepatch[] SECTION(".modinfo") = "livepatch=Y"
#define INIT int init_module(void)

extern struct module __this_module;
