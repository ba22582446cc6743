/* Loads a library, calls it at once, and unloads it, over and over, while other threads work; prints the calls.

   plugins LIBRARY ROUNDS [move]: with `move` it is loaded elsewhere each time. A line on standard input begins it; 0
   rounds are as many as there are until SIGTERM. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { OTHERS = 2, CALLS = 7, OWN = 3, PAGE = 4096 };

static volatile int stop, enough;

static void on_term(int number)
{
    enough = number;
}

static void *other(void *argument)
{
    volatile char *volatile memory;
    while (!stop) {
        memory = malloc(4000);
        memory[0] = 1;
        free((void *)memory);
    }
    return argument;
}

int main(int argc, char **argv)
{
    long rounds = atol(argv[2]), i, n, sum = 0;
    int move = argc > 3 && !strcmp(argv[3], "move");
    pthread_t others[OTHERS];
    signal(SIGTERM, on_term);
    for (i = 0; i < OTHERS; i++)
        pthread_create(&others[i], NULL, other, NULL);
    puts("ready");
    fflush(stdout);
    getchar();
    for (i = 0; rounds ? i < rounds : !enough; i++) {
        void *library = dlopen(argv[1], RTLD_NOW);
        long (*inside)(long);
        if (!library) {
            puts(dlerror());
            return 1;
        }
        inside = (long (*)(long))dlsym(library, "inside");
        for (n = 0; n < CALLS; n++)
            sum += inside(n);
        dlclose(library);
        if (move) /* what was just freed is taken, so the next one comes elsewhere */
            mmap(NULL, 5 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    stop = 1;
    for (n = 0; n < OTHERS; n++)
        pthread_join(others[n], NULL);
    printf("sum %ld\ncalls %ld\n", sum, i * (CALLS + OWN));
    return 0;
}
