/* Loads a library, calls it, and unloads it, again and again; calls work() each time. The library's path is given. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((noinline, noclone)) long work(long x)
{
    __asm__ volatile("");
    return x + 1;
}

int main(int argc, char **argv)
{
    long rounds = argc > 2 ? atol(argv[2]) : 200, i, n = 0;
    for (i = 0; i < rounds; i++) {
        void *library = dlopen(argv[1], RTLD_NOW);
        long (*inside)(long);
        if (!library) {
            puts(dlerror());
            return 1;
        }
        inside = (long (*)(long))dlsym(library, "inside");
        n = work(n) + inside(1);
        dlclose(library);
        if (i == 0) {
            puts("loaded once");
            fflush(stdout);
            usleep(1000);
        }
    }
    printf("n %ld\ncount work %ld\n", n, rounds);
    return 0;
}
