/* Calls `look` with addresses of every sort, one call each. Prints how many of them can be read. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define NOINLINE __attribute__((noinline, noclone))

static const char in_rodata[] = "in rodata";
static char in_data[] = "in data";

NOINLINE void look(const void *address, long readable) { __asm__ volatile("" : : "r"(address), "r"(readable)); }

static volatile int stop;

static void *churn(void *unused)
{
    for (int n = 0; n < 100 || !stop; n++) {
        char *page = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        strcpy(page, "soon gone");
        look(page, 2);
        munmap(page, PAGE);
        look(page, 2);
    }
    return unused;
}

int main(int argc, char **argv)
{
    char *pages = mmap(0, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *heap = strdup("on the heap"), stack[32] = "on the stack";
    strcpy(pages, "mapped");
    strcpy(pages + PAGE - 8, "end"); /* the last 8 bytes before nothing */
    munmap(pages + PAGE, PAGE);
    mprotect(pages + 2 * PAGE, PAGE, PROT_NONE);
    long ok[] = {(long)in_rodata, (long)in_data, (long)heap, (long)stack, (long)pages, (long)(pages + PAGE - 8)};
    long bad[] = {0, 8, PAGE, 1L << 47, -1, -4096, (long)0xffffffff81000000, 0x800000000000 - 4, 0x7ffffffff000,
                  0x0123456789abcdef, (long)(pages + PAGE), (long)(pages + 2 * PAGE), (long)(pages + PAGE - 4)};
    for (unsigned i = 0; i < sizeof ok / sizeof *ok; i++)
        look((void *)ok[i], 1);
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        look((void *)bad[i], 0);
    if (argc > 1) {
        pthread_t threads[2];
        for (int i = 0; i < 2; i++)
            pthread_create(&threads[i], 0, churn, 0);
        usleep(atoi(argv[1]) * 1000);
        stop = 1;
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], 0);
    }
    printf("done %d\n", (int)(sizeof ok / sizeof *ok));
    return 0;
}
