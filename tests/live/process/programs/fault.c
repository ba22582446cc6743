/* Calls functions whose results a handler may change; prints what came back. */
#include <stdio.h>

#define NOINLINE __attribute__((noinline, noclone))
static long ran;

NOINLINE long answer(long a, long b)
{
    ran++;
    return a * 10 + b;
}

NOINLINE long twice(long a) { return answer(a, a) + answer(a, 1); }

int main(void)
{
    for (long i = 0; i < 5; i++)
        printf("%ld ", answer(i, 2));
    printf("%ld ran %ld\n", twice(3), ran);
    return 0;
}
