/* Faults by each way, for fault handlers. `faulting HOW [N]`: every line tells what the signal handler saw. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <ucontext.h>
#include <unistd.h>

long load_from(const long *from);
long divide(long by);
void store_to(long *to);
long sink(long depth);
void illegal(void);
void load_on(const long *from, void *stack);
extern const char at_load[], at_div[], at_store[], at_call[], at_ill[];
__asm__(
    ".text\n"
    ".globl load_from\n.type load_from, @function\nload_from:\n"
    "mov $77, %eax\n"
    "at_load: mov (%rdi), %rax\n"
    "nop\nret\n"
    ".size load_from, . - load_from\n"
    ".globl divide\n.type divide, @function\ndivide:\n"
    "mov $1000, %eax\nxor %edx, %edx\n"
    "at_div: idiv %rdi\n"
    "ret\n"
    ".size divide, . - divide\n"
    ".globl store_to\n.type store_to, @function\nstore_to:\n"
    "at_store: movq $5, (%rdi)\n"
    "ret\n"
    ".size store_to, . - store_to\n"
    ".globl sink\n.type sink, @function\nsink:\n"
    "sub $8, %rsp\n"
    "at_call: call sink\n"
    "add $8, %rsp\nret\n"
    ".size sink, . - sink\n"
    ".globl illegal\n.type illegal, @function\nillegal:\n"
    "at_ill: ud2\n"
    "ret\n"
    ".size illegal, . - illegal\n"
    ".globl load_on\n.type load_on, @function\nload_on:\n"
    "mov %rsi, %rsp\npush $0\n"
    "at_edge: mov (%rdi), %rax\n"
    "ud2\n"
    ".size load_on, . - load_on\n"
    ".globl at_edge, at_load, at_div, at_store, at_call, at_ill\n");

static __thread sigjmp_buf back;
static __thread int seen;
static volatile int quiet;
static char *page;
static volatile char selector; /* 1: system calls are sent to the program itself */

static void tell(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    char text[200];
    selector = 0;
    seen++;
    if (info->si_code <= 0) {
        if (write(1, "sent\n", 5) != 5)
            _exit(9);
    } else if (!quiet) {
        long off = (const char *)registers[REG_RIP] - (const char *)load_from;
        long about = number == SIGSEGV ? (long)info->si_addr : (char *)info->si_addr - (const char *)load_from;
        int size = snprintf(text, sizeof text, "signal %d code %d at +%ld about %#lx trap %lld err %lld cr2 %#llx di %lld mask %d\n",
                            number, info->si_code, off, number == SIGSEGV && about > 1 << 20 ? 1 : about,
                            registers[REG_TRAPNO], registers[REG_ERR],
                            registers[REG_CR2] > 1 << 20 ? 1 : registers[REG_CR2],
                            registers[REG_RDI] > 1 << 20 ? 1 : registers[REG_RDI],
                            sigismember(&((ucontext_t *)context)->uc_sigmask, SIGUSR1));
        if (write(1, text, size) != size)
            _exit(9);
    }
    siglongjmp(back, 1);
}

static long tries(int count)
{
    static const long good = 3;
    volatile long sum = 0;
    for (volatile int i = 0; i < count; i++) {
        if (sigsetjmp(back, 1))
            continue;
        sum += load_from(i % 2 ? &good : NULL);
    }
    return sum;
}

/* Four threads that fault N times each. All the while each is sent signals: by another thread, queued and numbered, and
   by itself, blocked, so that one is pending at every other fault. It goes on only as signals come, and ends when none
   is to come any more: `changed` tells of one that was lost, doubled, or came as another one. */
static struct worker {
    pthread_t thread;
    int count;
    volatile int sent, ticks, changed;
    long sum;
} workers[4];
static __thread struct worker *self;
static __thread volatile int came;
static volatile int busy = 4, sending = 1;
enum { PACES = 8, WAITING = 3 };

static void tick(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    self->changed |= info->si_code != SI_QUEUE || info->si_value.sival_int != self->ticks;
    self->ticks++;
}

static void come(int number)
{
    (void)number;
    came++;
}

static void *work(void *given)
{
    sigset_t own;
    volatile int raised = 0;
    self = given;
    sigemptyset(&own);
    sigaddset(&own, SIGRTMIN);
    pthread_sigmask(SIG_UNBLOCK, &own, NULL);
    sigemptyset(&own);
    sigaddset(&own, SIGUSR2);
    for (volatile int pace = 1; pace <= PACES; pace++) {
        self->sum += tries(self->count / PACES);
        for (volatile int i = 0; i < self->count / PACES / 2; i++)
            if (!sigsetjmp(back, 1)) {
                pthread_sigmask(SIG_BLOCK, &own, NULL);
                raised += !pthread_kill(pthread_self(), SIGUSR2);
                load_from(NULL);
            }
        while (self->ticks < pace * 2)
            usleep(100);
    }
    __atomic_sub_fetch(&busy, 1, __ATOMIC_SEQ_CST);
    while (sending || self->ticks < self->sent)
        usleep(100);
    self->changed |= self->ticks != self->sent || came != raised;
    self->sum += 1000L * seen;
    return NULL;
}

static void *ticks(void *unused)
{
    (void)unused;
    while (busy) {
        for (struct worker *one = workers; one < workers + 4; one++) {
            union sigval value = {.sival_int = one->sent};
            if (one->sent - one->ticks < WAITING && !pthread_sigqueue(one->thread, SIGRTMIN, value))
                one->sent++;
        }
        usleep(300);
    }
    sending = 0;
    return NULL;
}

static void *overflow(void *unused)
{
    stack_t other = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    (void)unused;
    sigaltstack(&other, NULL);
    if (!sigsetjmp(back, 1))
        sink(0);
    puts("came back");
    return NULL;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    const char *how = argc > 1 ? argv[1] : "load";
    int count = argc > 2 ? atoi(argv[2]) : 3;
    for (int number = 1; number < 32; number++)
        if (number == SIGSEGV || number == SIGFPE || number == SIGBUS || number == SIGILL)
            sigaction(number, &action, NULL);
    setvbuf(stdout, NULL, _IONBF, 0);
    page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!strcmp(how, "load")) {
        printf("sum %ld\n", tries(count));
    } else if (!strcmp(how, "all")) {
        sigset_t blocked;
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGUSR1);
        sigprocmask(SIG_BLOCK, &blocked, NULL);
        if (!sigsetjmp(back, 1))
            printf("%ld\n", load_from((long *)16));
        if (!sigsetjmp(back, 1))
            printf("%ld\n", load_from((long *)0x8000000000000000));
        if (!sigsetjmp(back, 1))
            store_to((long *)page);
        if (!sigsetjmp(back, 1))
            printf("%ld\n", divide(0));
        if (!sigsetjmp(back, 1))
            illegal();
        if (!sigsetjmp(back, 1))
            raise(SIGFPE);
        printf("stored %ld\n", *(long *)page);
    } else if (!strcmp(how, "threads")) {
        struct sigaction ticked = {.sa_sigaction = tick, .sa_flags = SA_SIGINFO};
        pthread_t other;
        long sum = 0, changed = 0;
        sigset_t blocked;
        quiet = 1;
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGRTMIN);
        sigprocmask(SIG_BLOCK, &blocked, NULL);
        sigaction(SIGRTMIN, &ticked, NULL);
        signal(SIGUSR2, come);
        for (int i = 0; i < 4; i++) {
            workers[i].count = count;
            pthread_create(&workers[i].thread, NULL, work, &workers[i]);
        }
        pthread_create(&other, NULL, ticks, NULL);
        pthread_join(other, NULL);
        for (int i = 0; i < 4; i++) {
            pthread_join(workers[i].thread, NULL);
            sum += workers[i].sum;
            changed += workers[i].changed;
        }
        printf("sum %ld changed %ld\n", sum, changed);
    } else if (!strcmp(how, "deep")) {
        pthread_t thread;
        pthread_create(&thread, NULL, overflow, NULL);
        pthread_join(thread, NULL);
    } else if (!strcmp(how, "main-deep")) {
        overflow(NULL);
    } else if (!strcmp(how, "edge")) {
        /* the page that the stack pointer is on is there, the one below comes when it is touched */
        long here = (long)&here;
        for (int pages = 64; pages < 64 + 16 * count; pages += 16)
            if (!sigsetjmp(back, 1))
                load_on(NULL, (void *)((here & -4096) - 4096L * pages + 8));
    } else if (!strcmp(how, "library")) {
        for (int round = 0; round < 3; round++) {
            void *library = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
            long (*load)(const long *) = (long (*)(const long *))dlsym(library, "load_from");
            quiet = 1;
            for (volatile int i = 0; i < 5; i++)
                if (!sigsetjmp(back, 1))
                    load(NULL);
            dlclose(library);
        }
        printf("seen %d\n", seen);
    } else if (!strcmp(how, "dispatch")) {
        if (prctl(59, 1, 0, 0, &selector)) /* PR_SET_SYSCALL_USER_DISPATCH */
            puts("there is none");
        for (volatile int i = 0; i < count; i++)
            if (!sigsetjmp(back, 1)) {
                selector = 1;
                load_from(NULL);
            }
        selector = 0;
        puts("done");
    } else if (!strcmp(how, "for-ever")) {
        quiet = 1;
        printf("%d\n", (int)getpid());
        for (;;)
            tries(10);
    }
    return 0;
}
