/* Threads that come and go by the dozen while another maps and unmaps memory, until there is something to read.
   They call a function of the library that is given, which lies among that memory. */
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

enum { CROWD = 24, BLOCKS = 64, BLOCK = 4096 };

static volatile int stop;

static long (*inside)(long);

static void *visit(void *argument)
{
    return (void *)inside((long)argument);
}

static void *fill(void *argument)
{
    void *blocks[BLOCKS];
    int i;
    while (!stop) {
        for (i = 0; i < BLOCKS; i++)
            blocks[i] = mmap(NULL, BLOCK, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (i = 0; i < BLOCKS; i++)
            munmap(blocks[i], BLOCK);
    }
    return argument;
}

int main(int argc, char **argv)
{
    struct pollfd input = {0, POLLIN, 0};
    long i, rounds = 0;
    pthread_t filler, threads[CROWD];
    inside = (long (*)(long))dlsym(dlopen(argv[1], RTLD_NOW), "inside");
    pthread_create(&filler, NULL, fill, NULL);
    puts("ready");
    fflush(stdout);
    do {
        for (i = 0; i < CROWD; i++)
            pthread_create(&threads[i], NULL, visit, (void *)i);
        for (i = 0; i < CROWD; i++)
            pthread_join(threads[i], NULL);
        rounds++;
    } while (!poll(&input, 1, 0));
    stop = 1;
    pthread_join(filler, NULL);
    printf("whole %d\n", rounds > 0);
    return 0;
}
