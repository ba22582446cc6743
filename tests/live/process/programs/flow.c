/* Recursion, tail calls, longjmp, swapcontext, functions that read their return address, backtrace(), function
 * pointers, varargs, large structs by value. "count NAME N" lines say how often NAME has been called. */
#define _GNU_SOURCE
#include <execinfo.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define NOINLINE __attribute__((noinline, noclone))

static jmp_buf point;
static ucontext_t main_context, side_context;
static long jumps, switches, fib_calls, tail_calls;

int fib(int n);
static int (*volatile again)(int) = fib;

NOINLINE int fib(int n)
{
    fib_calls++;
    return n < 2 ? n : again(n - 1) + again(n - 2);
}

NOINLINE long tail_end(long n, long sum)
{
    tail_calls++;
    return sum + n;
}

NOINLINE long tail_start(long n, long sum)
{
    if (n & 1)
        return tail_end(n, sum);
    return tail_end(n + 1, sum ^ n);
}

NOINLINE void jump_out(int depth)
{
    if (depth)
        jump_out(depth - 1);
    else
        longjmp(point, 1);
    __asm__ volatile("");
}

NOINLINE void side(void)
{
    for (;;) {
        switches++;
        swapcontext(&side_context, &main_context);
    }
}

NOINLINE void *who_called(void)
{
    return __builtin_return_address(0);
}

NOINLINE int depth_of_stack(int more)
{
    void *frames[64];
    int n;
    if (more)
        return depth_of_stack(more - 1) + 0 * printf("%s", "");
    n = backtrace(frames, 64);
    return n;
}

NOINLINE double mixed(int n, ...)
{
    va_list list;
    double sum = 0;
    int i;
    va_start(list, n);
    for (i = 0; i < n; i++)
        sum += i & 1 ? va_arg(list, double) : va_arg(list, int);
    va_end(list);
    return sum;
}

struct large {
    long values[20];
};

NOINLINE struct large shuffle(struct large in, int by)
{
    struct large out;
    int i;
    for (i = 0; i < 20; i++)
        out.values[i] = in.values[(i + by) % 20] * 3;
    return out;
}

typedef long (*operation)(long, long);
NOINLINE long add(long a, long b) { return a + b; }
NOINLINE long subtract(long a, long b) { return a - b; }
NOINLINE long empty(void) { return 0; }
NOINLINE void nothing(void) { __asm__ volatile(""); }

NOINLINE int choose(int n)
{
    switch (n) {
    case 0: return 10;
    case 1: return fib(3);
    case 2: return (int)add(n, 5);
    case 3: return 77;
    case 4: return (int)subtract(1, n);
    case 5: return 9;
    case 6: return choose(5);
    default: return -1;
    }
}

int main(int argc, char **argv)
{
    static char stack[65536];
    long rounds = argc > 1 ? atol(argv[1]) : 2000, i, sum = 0;
    operation operations[] = {add, subtract, tail_start};
    struct large box;
    memset(&box, 1, sizeof box);
    getcontext(&side_context);
    side_context.uc_stack.ss_sp = stack;
    side_context.uc_stack.ss_size = sizeof stack;
    side_context.uc_link = NULL;
    makecontext(&side_context, side, 0);
    for (i = 0; i < rounds; i++) {
        sum += fib(5) + tail_start(i, sum & 0xffff) + choose((int)(i % 9));
        if (setjmp(point))
            jumps++;
        else
            jump_out((int)(i % 7));
        swapcontext(&main_context, &side_context);
        sum += who_called() == NULL;
        sum += (long)mixed(4, 1, 2.5, (int)i, 4.5);
        box = shuffle(box, (int)i);
        sum += operations[i % 3](i, sum & 0xff) + empty();
        nothing();
    }
    for (i = 0; i < 20; i++)
        sum += box.values[i] & 0xff;
    printf("sum %ld jumps %ld switches %ld depth %d\n", sum, jumps, switches, depth_of_stack(5));
    printf("count fib %ld\ncount tail_end %ld\ncount nothing %ld\ncount mixed %ld\n", fib_calls, tail_calls, rounds,
           rounds);
    printf("count main 1\ncount who_called %ld\ncount empty %ld\n", rounds, rounds);
    return 0;
}
