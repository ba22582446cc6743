/* Thread churn, fork, vfork and exec churn. The children print nothing but their status tells. */
#define _GNU_SOURCE
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
#define NOINLINE __attribute__((noinline, noclone))
static long calls;

NOINLINE long work(long x)
{
    __asm__ volatile("");
    return x * 3 + 1;
}

static void *short_thread(void *argument)
{
    long i, sum = 0;
    for (i = 0; i < 100; i++)
        sum += work(i);
    return (void *)sum;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 60, i, k, status, bad = 0;
    pthread_t ids[8];
    if (argc > 2) { /* as a new program */
        for (i = 0; i < 10; i++)
            work(i);
        return 7;
    }
    for (i = 0; i < rounds; i++) {
        void *result;
        pid_t pid;
        char *arguments[] = {argv[0], "1", "again", NULL};
        for (k = 0; k < 8; k++)
            pthread_create(&ids[k], NULL, short_thread, NULL);
        for (k = 0; k < 8; k++) {
            pthread_join(ids[k], &result);
            bad += (long)result != 14950;
            calls += 100;
        }
        pid = fork();
        if (!pid) {
            long sum = 0;
            for (k = 0; k < 50; k++)
                sum += work(k);
            pthread_create(&ids[0], NULL, short_thread, NULL);
            pthread_join(ids[0], NULL);
            _exit(sum == 3725 ? 5 : 1);
        }
        waitpid(pid, &status, 0);
        calls += 150;
        bad += !WIFEXITED(status) || WEXITSTATUS(status) != 5;
        pid = vfork();
        if (!pid) {
            work(1);
            execve(argv[0], arguments, environ);
            _exit(1);
        }
        calls += 1;
        waitpid(pid, &status, 0);
        bad += !WIFEXITED(status) || WEXITSTATUS(status) != 7;
        if (posix_spawn(&pid, argv[0], NULL, NULL, arguments, environ))
            bad++;
        waitpid(pid, &status, 0);
        bad += !WIFEXITED(status) || WEXITSTATUS(status) != 7;
    }
    printf("bad %d\ncount work %ld\n", bad, calls);
    return 0;
}
