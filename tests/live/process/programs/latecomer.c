/* Loads a library three times, each time waiting a while before it calls it, and unloads it. With a second argument it
   waits for a line on standard input when it has loaded it first. */
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    long i, n = 0;
    int round;
    for (round = 0; round < 3; round++) {
        void *library = dlopen(argv[1], RTLD_NOW);
        long (*inside)(long) = (long (*)(long))dlsym(library, "inside");
        if (!round && argc > 2) {
            puts("loaded");
            fflush(stdout);
            getchar();
        }
        usleep(100000);
        for (i = 0; i < 1000; i++)
            n += inside(i);
        dlclose(library);
        usleep(50000);
    }
    printf("n %ld\n", n);
    return 0;
}
