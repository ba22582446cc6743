/* Usage: stamps COMMAND ARGUMENT...: runs the command and prints before each line of its output the seconds since its
   start. */
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int count, char **words)
{
    int ends[2], status;
    char line[4096];
    if (count < 2 || pipe(ends))
        return 2;
    double begin = now();
    if (!fork()) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execvp(words[1], words + 1);
        _exit(127);
    }
    close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    while (fgets(line, sizeof line, output))
        printf("%.4f %s", now() - begin, line);
    wait(&status);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
