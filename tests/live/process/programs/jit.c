/* Makes code at run time, never writable and executable at once, and runs it. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

__attribute__((noinline, noclone)) long work(long x)
{
    __asm__ volatile("");
    return x + 1;
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : 3000, i, n = 0;
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (i = 0; i < rounds; i++) {
        /* lea (i & 127)(%rdi), %rax; ret */
        unsigned char text[] = {0x48, 0x8d, 0x47, (unsigned char)(i & 127), 0xc3};
        mprotect(code, 4096, PROT_READ | PROT_WRITE);
        memcpy(code, text, sizeof text);
        mprotect(code, 4096, PROT_READ | PROT_EXEC);
        n = ((long (*)(long))code)(work(n)) & 0xffff;
    }
    printf("n %ld\ncount work %ld\n", n, rounds);
    return 0;
}
