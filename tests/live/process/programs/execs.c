/* Executes itself again as many times as it is told, then prints its process's id and "done". */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((noinline, noclone)) long work(long x)
{
    __asm__ volatile("");
    return x + 1;
}

int main(int argc, char **argv)
{
    long left = atol(argv[1]), i, n = 0;
    char text[32];
    for (i = 0; i < 1000; i++)
        n = work(n);
    if (argc > 2)
        usleep(atoi(argv[2]));
    if (left) {
        snprintf(text, sizeof text, "%ld", left - 1);
        argv[1] = text;
        execv("/proc/self/exe", argv);
        return 1;
    }
    printf("done %ld\n", n);
    return 0;
}
