/*
 * The kernel's way of speaking, as far as the cases need it: macros that leave entries in special sections,
 * with the layouts of Linux 6.1 on x86-64.
 */
#define NULL ((void *)0)
#define noinline __attribute__((noinline))
#define __used __attribute__((used))
#define __section(name) __attribute__((section(name)))
#define notrace __attribute__((no_instrument_function))
#define __init __section(".init.text") __attribute__((cold))
#define __initdata __section(".init.data")
#define __read_mostly __section(".data..read_mostly")
#define __sched __section(".sched.text")
#define __weak __attribute__((weak))
#define unlikely(x) __builtin_expect(!!(x), 0)
#define likely(x) __builtin_expect(!!(x), 1)

typedef unsigned long ulong;

int printk(const char *format, ...) __attribute__((format(printf, 1, 2)));
int _printk(const char *format, ...);
void __might_sleep(const char *file, int line);
void set_level(int level);
int outside(int value);
void use(const void *pointer);

#define might_sleep() __might_sleep(__FILE__, __LINE__)

#define BUG_ENTRY(flags) \
	asm volatile("1: .byte 0x0f, 0x0b\n" \
		".pushsection __bug_table, \"aw\"\n" \
		"2: .long 1b - .\n .long %c0 - .\n .word %c1\n .word %c2\n .org 2b + 12\n" \
		".popsection" : : "i" (__FILE__), "i" (__LINE__), "i" (flags))
#define BUG() do { BUG_ENTRY(0); __builtin_unreachable(); } while (0)
#define WARN_ON(condition) ({ int failed = !!(condition); if (unlikely(failed)) BUG_ENTRY(0x901); failed; })

/* Reads memory that may not be there; the handler type is what the fixup code gets. */
#define GUARDED_READ(value, address, type) ({ \
	__label__ fault, done; int result = 0; \
	asm goto("1: movl (%0), %%eax\n" \
		".pushsection __ex_table, \"a\"\n .balign 4\n .long 1b - .\n .long %l[fault] - .\n .long " #type "\n" \
		".popsection" : : "r" (address) : "eax", "memory" : fault); \
	goto done; fault: result = -14; done: value = result; })

struct static_key { int enabled; void *entries; };
#define STATIC_BRANCH(key) ({ \
	__label__ yes, out; int taken = 0; \
	asm goto("1: .byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n" \
		".pushsection __jump_table, \"aw\"\n .balign 8\n .long 1b - .\n .long %l[yes] - .\n .quad %c0 - .\n" \
		".popsection" : : "i" (key) : : yes); \
	goto out; yes: taken = 1; out: taken; })

#define STATIC_CALL(key, trampoline) \
	asm volatile("1: call " #trampoline "\n" \
		".pushsection .static_call_sites, \"aw\"\n .balign 4\n .long 1b - .\n .long " #key " - .\n .popsection" \
		: : : "memory", "rax", "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r10", "r11")

#define ALTERNATIVE(old, new, feature) \
	asm volatile("661:\n " old "\n662:\n" \
		".pushsection .altinstructions, \"a\"\n .long 661b - .\n .long 663f - .\n .word " #feature "\n" \
		".byte 662b - 661b\n .byte 664f - 663f\n .popsection\n" \
		".pushsection .altinstr_replacement, \"ax\"\n663:\n " new "\n664:\n .popsection" : : : "memory")

#define LOCKED_INC(counter) \
	asm volatile(".pushsection .smp_locks, \"a\"\n .balign 4\n .long 671f - .\n .popsection\n" \
		"671: lock; incl %0" : "+m" (counter))

#define EXPORT(symbol, suffix, space) \
	asm(".pushsection \"__ksymtab_strings\", \"aMS\", @progbits, 1\n" \
		"__kstrtab_" #symbol ": .asciz \"" #symbol "\"\n __kstrtabns_" #symbol ": .asciz \"" space "\"\n .popsection\n" \
		".pushsection \"___ksymtab" suffix "+" #symbol "\", \"a\"\n .balign 4\n" \
		"__ksymtab_" #symbol ": .long " #symbol " - .\n .long __kstrtab_" #symbol " - .\n" \
		" .long __kstrtabns_" #symbol " - .\n .popsection")
#define EXPORT_SYMBOL(symbol) EXPORT(symbol, "", "")
#define EXPORT_SYMBOL_GPL(symbol) EXPORT(symbol, "_gpl", "")

#define module_init(function) static int (*initcall_##function)(void) __used __section(".initcall6.init") = function
#define UPDATE_MARK(what, function) static void *update_##function __used __section(".update." what) = function
