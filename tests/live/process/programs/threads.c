/* Threads call work() in a loop until SIGTERM or the given number of calls each; at the end the calls are printed. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static volatile int stop;
static unsigned long limit;
static unsigned long calls[64];
static unsigned long sums[64];

__attribute__((noinline, noclone)) unsigned long work(unsigned long x)
{
    __asm__ volatile("" ::: "memory");
    return x * 2654435761u + 1;
}

static void *loop(void *argument)
{
    unsigned long index = (unsigned long)argument, sum = 0, n = 0;
    while (!stop && (!limit || n < limit)) {
        sum += work(n);
        n++;
    }
    calls[index] = n;
    sums[index] = sum;
    return NULL;
}

static void on_term(int signal)
{
    stop = 1;
}

int main(int argc, char **argv)
{
    unsigned long threads = argc > 1 ? strtoul(argv[1], NULL, 0) : 2, i, all = 0, expect, n;
    pthread_t ids[64];
    limit = argc > 2 ? strtoul(argv[2], NULL, 0) : 0;
    signal(SIGTERM, on_term);
    if (argc > 3) { /* wait to be probed: a line on standard input starts the threads */
        puts("ready");
        fflush(stdout);
        getchar();
    }
    for (i = 0; i < threads; i++)
        pthread_create(&ids[i], NULL, loop, (void *)i);
    for (i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    for (i = 0; i < threads; i++) {
        for (expect = 0, n = 0; n < calls[i]; n++)
            expect += n * 2654435761u + 1;
        if (expect != sums[i])
            printf("thread %lu: wrong sum\n", i);
        all += calls[i];
    }
    printf("calls %lu\n", all);
    return 0;
}
