/* Threads call hot() as fast as they can, one between naps, all of them from a timer's signal too. The file that is
 * named shows how often each has called it, and holds a gate: while it is shut, threads stay outside of hot() and say so.
 * On SIGTERM the sums of all calls are checked and their number is printed. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define THREADS 4

struct seat {
    volatile unsigned long calls, signal_calls, parked, sum, expected;
    unsigned long pad[3];
};

struct shared {
    volatile unsigned long shut, pad[7];
    struct seat seats[THREADS];
};

static struct shared *shared;
static volatile int stop;
static __thread struct seat *mine;

__attribute__((noinline, noclone)) unsigned long hot(unsigned long x, unsigned long *where)
{
    volatile unsigned long kept = x * 2654435761u;
    *where += kept + 1;
    __asm__ volatile("" ::: "memory", "rbx", "r12");
    return kept ^ x;
}

static void on_timer(int number)
{
    unsigned long sum = 0, n = mine->signal_calls;
    if (shared->shut)
        return;
    if (hot(n, &sum) != (n * 2654435761u ^ n) || sum != n * 2654435761u + 1)
        mine->expected = 1; /* wrong for ever */
    mine->signal_calls = n + 1;
}

static void on_term(int number)
{
    stop = 1;
}

static void *work(void *argument)
{
    unsigned long index = (unsigned long)argument, n = 0, sum = 0;
    sigset_t timer;
    mine = &shared->seats[index];
    sigemptyset(&timer);
    sigaddset(&timer, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &timer, NULL);
    while (!stop) {
        if (shared->shut) {
            mine->parked = 1;
            while (shared->shut && !stop)
                usleep(50);
            mine->parked = 0;
            continue;
        }
        if (hot(n, &sum) != (n * 2654435761u ^ n))
            printf("thread %lu: wrong result\n", index);
        mine->expected += n * 2654435761u + 1;
        mine->calls = ++n;
        if (index == 0 && n % 64 == 0)
            usleep(20);
    }
    mine->sum = sum;
    return NULL;
}

int main(int argc, char **argv)
{
    struct itimerval interval = {{0, 1500}, {0, 1500}};
    pthread_t ids[THREADS];
    unsigned long i, all = 0;
    sigset_t timer;
    int file = open(argv[1], O_RDWR);
    if (file < 0 || ftruncate(file, sizeof *shared))
        return 1;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    sigemptyset(&timer);
    sigaddset(&timer, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &timer, NULL);
    signal(SIGTERM, on_term);
    signal(SIGALRM, on_timer);
    for (i = 0; i < THREADS; i++)
        pthread_create(&ids[i], NULL, work, (void *)i);
    setitimer(ITIMER_REAL, &interval, NULL);
    for (i = 0; i < THREADS; i++)
        pthread_join(ids[i], NULL);
    for (i = 0; i < THREADS; i++) {
        if (shared->seats[i].sum != shared->seats[i].expected)
            printf("thread %lu: wrong sum\n", i);
        all += shared->seats[i].calls + shared->seats[i].signal_calls;
    }
    printf("calls %lu\n", all);
    return 0;
}
