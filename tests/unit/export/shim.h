/* As much of the kernel as the handlers of exported modules need to run in a program. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;
typedef struct { s64 counter; } atomic64_t;
typedef unsigned char kprobe_opcode_t;
enum mode { MODE_OFF, MODE_SLOW = 2, MODE_FAST = 7 };
struct point { u32 x; int y; long z; };
struct node {
	u64 id; long weight; u32 small; int debt; u16 port; short shift; u8 tag; signed char sign; bool on; u8 gap;
	enum mode mode; u32 bits; u64 wide; u8 gap2[8]; char name[12]; u8 gap3[4]; char *text; struct node *next, *peer; void *data;
	union { u64 whole; u32 half; }; int prio[4]; struct point at, corners[1];
};
_Static_assert(sizeof(struct node) == 160, "as the test's types have it");
_Static_assert(offsetof(struct node, name) == 56 && offsetof(struct node, text) == 72, "as the test's types have it");
_Static_assert(offsetof(struct node, whole) == 104 && offsetof(struct node, at) == 128, "as the test's types have it");
struct pt_regs { unsigned long di, si, dx, cx, r8, r9, ax, ip; };
struct task_struct { int pid, tgid; char comm[16]; };
struct kprobe {
	const char *symbol_name;
	void *addr;
	int (*pre_handler)(struct kprobe *, struct pt_regs *);
	unsigned long nmissed;
};

static struct task_struct shim_task = { 7, 5, "bash" };
static char shim_text[1 << 16];
static size_t shim_used;

#define current (&shim_task)
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#define TASK_SIZE_MAX (1UL << 47)
#define S64_MAX 0x7fffffffffffffffLL
#define S64_MIN (-S64_MAX - 1)
#define __force
#define __user
#define __init
#define __exit
#define KBUILD_MODNAME "m"
#define ARRAY_SIZE(x) (sizeof(x) / sizeof((x)[0]))
#define READ_ONCE(x) (x)
#define min_t(type, a, b) ((type)(a) < (type)(b) ? (type)(a) : (type)(b))
#define max_t(type, a, b) ((type)(a) > (type)(b) ? (type)(a) : (type)(b))
#define abs(x) ((x) < 0 ? -(x) : (x))
#define NOKPROBE_SYMBOL(x)
#define MODULE_PARM_DESC(name, text)
#define MODULE_DESCRIPTION(text)
#define MODULE_LICENSE(text)
#define module_param(name, type, mode)
#define module_init(f) static int (*shim_init)(void) __attribute__((unused)) = f;
#define module_exit(f) static void (*shim_exit)(void) __attribute__((unused)) = f;
#define pr_err(...) shim_say(__VA_ARGS__)
#define pr_info(...) shim_say(__VA_ARGS__)
#define atomic64_inc(a) ((a)->counter++)
#define atomic64_read(a) ((a)->counter)
#define atomic64_set(a, value) ((a)->counter = (value))
#define atomic64_add(value, a) ((a)->counter += (value))
#define atomic64_inc_return(a) (++(a)->counter)
#define atomic64_try_cmpxchg(a, known, value) ((void)(known), (a)->counter = (value), 1)
#define ATOMIC64_INIT(value) { (value) }
#define WRITE_ONCE(x, value) ((x) = (value))
#define pr_warn(...) ((void)0)
#define fls64(x) (64 - __builtin_clzll(x))

static __attribute__((format(printf, 1, 2))) void shim_say(const char *format, ...)
{
	va_list rest;

	va_start(rest, format);
	shim_used += vsnprintf(shim_text + shim_used, sizeof(shim_text) - shim_used, format, rest);
	va_end(rest);
}

static long copy_from_kernel_nofault(void *to, const void *from, size_t size)
{
	struct iovec here = { to, size }, there = { (void *)from, size };

	return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)size ? 0 : -14;
}
#define copy_from_user_nofault copy_from_kernel_nofault

static __attribute__((unused)) long strscpy_pad(char *to, const char *from, size_t size)
{
	memset(to, 0, size);
	memcpy(to, from, strnlen(from, size - 1));
	return 0;
}
#define strscpy strscpy_pad
static int register_kprobe(struct kprobe *p) { return p->addr ? 0 : -1; }
static void unregister_kprobe(struct kprobe *p) { p->addr = NULL; }
