/* Instructions that fault, for a handler that knows them by their addresses (as those of JVMs and Go do), or that leaves
   by siglongjmp. Prints what the handler made of it. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <ucontext.h>
#include <unistd.h>

long load_from(const long *from);
long divide(long by);
extern const char at_load[], at_div[];
__asm__(
    ".text\n.globl load_from\n.type load_from, @function\nload_from:\n"
    "at_load: mov (%rdi), %rax\n"
    "nop\n"
    "ret\n"
    ".size load_from, . - load_from\n"
    ".globl divide\n.type divide, @function\ndivide:\n"
    "mov $1000, %eax\n"
    "xor %edx, %edx\n"
    "at_div: idiv %rdi\n"
    "ret\n"
    ".size divide, . - divide\n");

static sigjmp_buf back;
static int leaves, strange, known;

static void on_fault(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const char *ip = (const char *)registers[REG_RIP];
    if (ip == (number == SIGSEGV ? at_load : at_div) && (number == SIGSEGV || info->si_addr == ip))
        known++;
    else
        strange++;
    if (leaves)
        siglongjmp(back, 1);
    registers[REG_RAX] = -1;
    registers[REG_RIP] += 3;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    long value = 5, sum = 0, i;
    leaves = argc > 1 && !strcmp(argv[1], "leave");
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
    for (i = 0; i < 100; i++) {
        if (sigsetjmp(back, 1)) {
            sum -= 1;
            continue;
        }
        sum += i % 10 ? load_from(&value) : load_from(NULL);
        sum += i % 10 != 5 ? divide(i + 1) : divide(0);
    }
    printf("sum %ld known %d strange %d\n", sum, known, strange);
    return 0;
}
