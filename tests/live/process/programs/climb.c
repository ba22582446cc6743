/* Calls work(), then executes the program that is given, with its arguments. A line on standard input begins it. */
#include <stdio.h>
#include <unistd.h>

__attribute__((noinline, noclone)) long work(long x)
{
    __asm__ volatile("");
    return x + 1;
}

int main(int argc, char **argv)
{
    long i, n = 0;
    puts("ready");
    fflush(stdout);
    getchar();
    for (i = 0; i < 1000; i++)
        n = work(n);
    execv(argv[1], argv + 1);
    return n > 0;
}
