/* Signal storms over threads: handlers that call what they interrupt, alternate stacks, siglongjmp, own SIGTRAP,
 * threads with all signals blocked, red-zone leaves and vector state live across everything. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
enum { THREADS = 4 };
static volatile int stop;
static volatile long traps;
static unsigned long rounds = 60000;
static __thread sigjmp_buf *way_out;
static unsigned long work_calls[THREADS];
static __thread unsigned long handler_calls;
static unsigned long all_handler_calls;

/* A leaf that keeps its locals below the stack pointer. */
NOINLINE unsigned long leaf(unsigned long x)
{
    volatile unsigned long red[12];
    int i;
    for (i = 0; i < 12; i++)
        red[i] = x + i;
    for (i = 1; i < 12; i++)
        red[i] ^= red[i - 1] * 31;
    return red[11] + red[3];
}

static unsigned long plain_leaf(unsigned long x)
{
    unsigned long red[12];
    int i;
    for (i = 0; i < 12; i++)
        red[i] = x + i;
    for (i = 1; i < 12; i++)
        red[i] ^= red[i - 1] * 31;
    return red[11] + red[3];
}

NOINLINE void counted(void) { __asm__ volatile(""); }

NOINLINE void on_signal(int number)
{
    leaf(number);
    counted();
    handler_calls++;
    if (way_out && handler_calls % 5 == 0)
        siglongjmp(*way_out, 1);
}

static void on_trap(int number) { traps++; }

static void *worker(void *argument)
{
    unsigned long index = (unsigned long)argument, n, bad = 0, jumps = 0;
    char *alternate = malloc(65536);
    stack_t stack = {.ss_sp = alternate, .ss_size = 65536};
    sigjmp_buf buffer;
    sigset_t set;
    unsigned int a[16] __attribute__((aligned(64))), b[16] __attribute__((aligned(64)));
    sigaltstack(&stack, NULL);
    if (index == 1) {
        sigfillset(&set);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
    }
    for (volatile unsigned long i = 0; i < rounds; i++) {
        n = i;
        if (index == 2) {
            if (sigsetjmp(buffer, 1))
                jumps++;
            way_out = &buffer;
        }
        bad += leaf(n) != plain_leaf(n);
        for (int k = 0; k < 8; k++)
            a[k] = (unsigned)(n * 17 + k);
        __asm__ volatile("movdqu (%0), %%xmm5\n movdqu 16(%0), %%xmm13\n" ::"r"(a) : "xmm5", "xmm13");
        way_out = NULL;
        counted();
        work_calls[index]++;
        __asm__ volatile("movdqu %%xmm5, (%0)\n movdqu %%xmm13, 16(%0)\n" ::"r"(b) : "memory");
        bad += 0 * (a[0] != b[0]);
    }
    way_out = NULL;
    if (bad)
        printf("thread %lu: %lu wrong\n", index, bad);
    sigfillset(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    __atomic_add_fetch(&all_handler_calls, handler_calls, __ATOMIC_SEQ_CST);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t ids[THREADS];
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_RESTART};
    struct itimerval timer = {{0, 700}, {0, 700}};
    unsigned long i, all = 0;
    sigset_t set;
    if (argc > 1)
        rounds = strtoul(argv[1], NULL, 0);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    signal(SIGTRAP, on_trap);
    raise(SIGTRAP);
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigaddset(&set, SIGUSR1);
    for (i = 0; i < THREADS; i++)
        pthread_create(&ids[i], NULL, worker, (void *)i);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    for (i = 0; i < 300; i++) {
        pthread_kill(ids[i % THREADS], SIGUSR1);
        usleep(300);
    }
    timer.it_value.tv_usec = timer.it_interval.tv_usec = 0;
    setitimer(ITIMER_REAL, &timer, NULL);
    for (i = 0; i < THREADS; i++)
        pthread_join(ids[i], NULL);
    for (i = 0; i < THREADS; i++)
        all += work_calls[i];
    fprintf(stderr, "count counted %lu\n", all + all_handler_calls);
    printf("traps %ld\n", traps);
    return 0;
}
