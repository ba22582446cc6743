/* Usage: calls ROUNDS CALLS NUMBER...: makes CALLS of each system call NUMBER in turns, ROUNDS times, and prints for each
   the least nanoseconds per call. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int count, char **words)
{
    int rounds = atoi(words[1]), calls = atoi(words[2]), kinds = count - 3;
    double least[64];
    for (int round = 0; round < rounds; round++)
        for (int kind = 0; kind < kinds; kind++) {
            long number = atol(words[kind + 3]);
            long long begin = now();
            for (int call = 0; call < calls; call++)
                syscall(number);
            double each = (double)(now() - begin) / calls;
            if (!round || each < least[kind])
                least[kind] = each;
        }
    for (int kind = 0; kind < kinds; kind++)
        printf("%s %.1f\n", words[kind + 3], least[kind]);
    return 0;
}
