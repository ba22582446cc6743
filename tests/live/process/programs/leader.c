/* The first thread ends; the others go on. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static long calls;

__attribute__((noinline, noclone)) long work(long x)
{
    __asm__ volatile("");
    return x + 1;
}

static char state_of_the_first(void)
{
    char state = 0;
    FILE *file = fopen("/proc/self/stat", "r");
    fscanf(file, "%*d (%*[^)]) %c", &state);
    fclose(file);
    return state;
}

static void *other(void *argument)
{
    long i, n = 0;
    while (state_of_the_first() != 'Z')
        usleep(1000);
    puts("alone");
    fflush(stdout);
    getchar();
    for (i = 0; i < 100000; i++)
        n = work(n);
    calls = n;
    printf("count work %ld\n", calls);
    exit(0);
}

int main(void)
{
    pthread_t id;
    pthread_create(&id, NULL, other, NULL);
    pthread_exit(NULL);
}
