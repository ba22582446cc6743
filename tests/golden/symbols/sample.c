/* A small library: exported, hidden, static, aliased, versioned and IFUNC functions. Built by make_elf.sh. */
#define EXPORT __attribute__((visibility("default")))

static int counter;

__attribute__((noinline)) static int helper(int x) { return x * 3 + counter; }
EXPORT int sample_add(int a, int b) { counter++; return helper(a) + b; }
EXPORT int sample_alias(int a, int b) __attribute__((alias("sample_add")));
__attribute__((noinline, visibility("hidden"))) int sample_hidden(int a) { return helper(a) - 1; }

static int fast(int a) { return a + 1; }
static int slow(int a) { return sample_hidden(a); }
static int (*choose(void))(int) { return counter ? slow : fast; }
EXPORT int sample_chosen(int a) __attribute__((ifunc("choose")));

EXPORT int old_version(int a) { return a; }
EXPORT int new_version(int a) { return a + 2; }
__asm__(".symver old_version, sample_versioned@SAMPLE_1");
__asm__(".symver new_version, sample_versioned@@SAMPLE_2");

__asm__(".pushsection .text\n.globl sample_asm\nsample_asm: nop; nop; ret\n.popsection");
