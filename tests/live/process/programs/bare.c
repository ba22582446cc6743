/* No libc, no thread pointer: raw system calls, threads by raw clone on stacks of 3 KiB. Built with -nostdlib -static. */
typedef unsigned long ulong;
#define NOINLINE __attribute__((noinline, noclone))
#ifndef ROUNDS_
#define ROUNDS_ 50000
#endif
enum { THREADS = 4, ROUNDS = ROUNDS_, STACK = 3072 };
static char stacks[THREADS][STACK] __attribute__((aligned(16)));
static volatile ulong sums[THREADS];
static volatile int done;

static long call(long n, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return result;
}

NOINLINE ulong work(ulong x)
{
    __asm__ volatile("" ::: "memory");
    return x * 2654435761u + 1;
}

NOINLINE void body(ulong index)
{
    ulong i, sum = 0;
    for (i = 0; i < ROUNDS; i++)
        sum += work(i);
    sums[index] = sum;
    __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
}

/* clone(CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM); the child runs body and exits */
long start(ulong index, void *stack);
__asm__(".text\n.globl start\n.type start, @function\nstart:\n"
        "mov %rdi, %r12\n mov $0x50f00, %edi\n xor %edx, %edx\n xor %r10d, %r10d\n xor %r8d, %r8d\n"
        "mov $56, %eax\n syscall\n test %eax, %eax\n jz 1f\n ret\n"
        "1: xor %ebp, %ebp\n mov %r12, %rdi\n call body\n mov $60, %eax\n xor %edi, %edi\n syscall\n"
        ".size start, . - start\n");

static void print(const char *text)
{
    ulong n = 0;
    while (text[n])
        n++;
    call(1, 1, (long)text, n, 0, 0);
}

void run(void)
{
    ulong i, expect = 0;
    char wait[1];
    if (call(0, 0, (long)wait, 1, 0, 0) < 0)
        call(231, 2, 0, 0, 0, 0);
    for (i = 0; i < ROUNDS; i++)
        expect += i * 2654435761u + 1;
    for (i = 0; i < THREADS; i++) {
        __asm__ volatile("" ::: "r12");
        start(i, stacks[i] + STACK - 16);
    }
    while (done < THREADS)
        call(24, 0, 0, 0, 0, 0);
    for (i = 0; i < THREADS; i++)
        if (sums[i] != expect)
            print("wrong\n");
    print(ROUNDS == 50000 ? "done\ncount work 200000\n" : "done\n");
    print("count body 4\ncount start 4\n");
    call(231, 0, 0, 0, 0, 0);
}

__asm__(".globl _start\n.type _start, @function\n_start: xor %ebp, %ebp\n and $-16, %rsp\n call run\n hlt\n"
        ".size _start, . - _start\n");
