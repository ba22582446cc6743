/* Forbids itself, on pain of death, every system call that a handler might make; then calls `look` on request. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
#define KILL(number) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)

static char known[] = "of the program";

NOINLINE void look(const void *address, long readable) { __asm__ volatile("nopl 0(%0, %1)" : : "r"(address), "r"(readable)); }

int main(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        KILL(SYS_process_vm_readv),
        KILL(SYS_gettid),
        KILL(SYS_getpid),
        KILL(SYS_prctl),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    char *heap = strdup("on the heap"), stack[16] = "on the stack";
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 2;
    puts("ready");
    fflush(stdout);
    getchar();
    look(known, 1);
    look(stack, 1);
    look(heap, 0);
    look((void *)8, 0);
    puts("done");
    return 0;
}
