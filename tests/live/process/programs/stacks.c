/* Calls leaf() in many ways, each after printing the frames that glibc's backtrace() finds: of the caller of leaf() and
   all before it. Built without frame pointers. */
#define _GNU_SOURCE
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

NOINLINE long leaf(long x)
{
    __asm__ volatile("" ::: "memory");
    return x + 1;
}

NOINLINE static void tell(void)
{
    void *found[256];
    int count = backtrace(found, 256), i;
    for (i = 2; i < count; i++)
        printf("%lx ", (unsigned long)found[i]);
    puts("");
    fflush(stdout);
}

NOINLINE long mid(long x)
{
    volatile char room[9000]; /* more than a page or two */
    long found;
    room[x] = 1;
    tell();
    found = leaf(x);
    return found + room[x];
}

NOINLINE long deep(long n)
{
    volatile long kept = n;
    return n ? deep(n - 1) + kept : mid(1);
}

static int compare(const void *a, const void *b)
{
    static int once;
    volatile int kept = *(const int *)a;
    if (!once++)
        mid(2);
    return kept - *(const int *)b;
}

static void on_signal(int number)
{
    volatile int kept = number;
    mid(3);
    kept++;
}

static void *thread(void *argument)
{
    volatile long kept = (long)argument;
    mid(4);
    kept++;
    return NULL;
}

/* Code without unwind tables, with a frame pointer: movabs rax, mid; push rbp; mov rbp, rsp; call rax; pop rbp; ret */
static void call_made_at_run_time(void)
{
    unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd0, 0x5d, 0xc3};
    long (*address)(long) = leaf;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code + 6, &address, 8);
    memcpy(page, code, sizeof code);
    tell(); /* our caller's frames and further */
    ((long (*)(long))page)(9);
}

/* The same without a frame pointer, and with a wild one. */
static void call_with_a_wild_pointer(void)
{
    unsigned char code[] = {0x55, 0x48, 0xc7, 0xc5, 8, 1, 0, 0x70, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd0, 0x5d, 0xc3};
    long (*address)(long) = leaf;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code + 10, &address, 8);
    memcpy(page, code, sizeof code);
    ((long (*)(long))page)(10);
}

int main(void)
{
    int numbers[] = {3, 1, 2};
    pthread_t id;
    stack_t other = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    void *warm[4];
    backtrace(warm, 4); /* it loads libgcc */
    mid(0);
    deep(20);
    qsort(numbers, 3, sizeof *numbers, compare);
    sigaltstack(&other, NULL);
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    pthread_create(&id, NULL, thread, NULL);
    pthread_join(id, NULL);
    call_made_at_run_time();
    call_with_a_wild_pointer();
    deep(200);
    return 0;
}
