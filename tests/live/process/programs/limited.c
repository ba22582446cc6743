/* What the process may do is limited: "seccomp" (a filter that kills on mmap, memfd_create and more), "strict", "as" (no
 * memory to be had), "files" (no descriptor free). Then it waits for a line, and works. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((noinline, noclone)) long work(long x)
{
    __asm__ volatile("");
    return x + 1;
}

static void allow_only_simple(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
    static char text[64];
    const char *how = argc > 1 ? argv[1] : "";
    struct rlimit limit = {0, 0};
    long i, n = 0;
    if (!strcmp(how, "as")) {
        limit.rlim_cur = limit.rlim_max = 1 << 20;
        setrlimit(RLIMIT_AS, &limit);
    } else if (!strcmp(how, "files")) {
        limit.rlim_cur = limit.rlim_max = 3;
        setrlimit(RLIMIT_NOFILE, &limit);
    } else if (!strcmp(how, "seccomp"))
        allow_only_simple();
    else if (!strcmp(how, "strict"))
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    write(1, "ready\n", 6);
    read(0, text, 1);
    for (i = 0; i < 100000; i++)
        n = work(n);
    i = sizeof text;
    text[--i] = '\n';
    do
        text[--i] = (char)('0' + n % 10);
    while (n /= 10);
    write(1, "count work ", 11);
    write(1, text + i, sizeof text - i);
    syscall(!strcmp(how, "strict") ? SYS_exit : SYS_exit_group, 0);
}
