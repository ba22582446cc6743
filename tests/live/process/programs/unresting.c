/* Threads call work() and other() in a loop, with short rests, until SIGTERM, each some thousand times at least; then
   the calls of work() are printed. Meanwhile each line on standard input is waited for in waits(). */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile int stop;
static unsigned long calls[64];

__attribute__((noinline, noclone)) unsigned long other(unsigned long x)
{
    __asm__ volatile("" ::: "memory");
    return x ^ 0x55;
}

__attribute__((noinline, noclone)) unsigned long work(unsigned long x)
{
    __asm__ volatile("" ::: "memory");
    return other(x + 1) * 3 + 1;
}

__attribute__((noinline, noclone)) long waits(long number)
{
    char line[64];
    __asm__ volatile("" ::: "memory");
    return fgets(line, sizeof line, stdin) ? number + strlen(line) : -1;
}

static void *loop(void *argument)
{
    unsigned long index = (unsigned long)argument, n = 0;
    while (!stop || n < 8192) {
        if (work(n) != ((n + 1) ^ 0x55) * 3 + 1)
            abort();
        if (!(++n % 8192))
            usleep(500);
    }
    calls[index] = n;
    return NULL;
}

static void on_term(int signal)
{
    stop = 1;
}

int main(int argc, char **argv)
{
    unsigned long threads = strtoul(argv[1], NULL, 0), i, all = 0;
    struct sigaction action = {.sa_handler = on_term, .sa_flags = SA_RESTART};
    pthread_t ids[64];
    sigaction(SIGTERM, &action, NULL);
    puts("ready");
    fflush(stdout);
    waits(0);
    for (i = 0; i < threads; i++)
        pthread_create(&ids[i], NULL, loop, (void *)i);
    waits(7);
    for (i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    for (i = 0; i < threads; i++)
        all += calls[i];
    printf("calls %lu\n", all);
    return 0;
}
