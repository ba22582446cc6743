/* Calls look() with numbers of all sizes, and a text that may be anywhere; as many times as it is told. */
#include <stdio.h>
#include <stdlib.h>

static const char *const texts[] = {"", "a", "some longer text that is cut", (const char *)8, (const char *)-64};

__attribute__((noinline, noclone)) long look(unsigned long large, long small, long negative, const char *text)
{
    __asm__ volatile("" ::"r"(text));
    return large ^ small ^ negative;
}

int main(int argc, char **argv)
{
    unsigned long rounds = strtoul(argv[1], NULL, 0), i, all = 0;
    for (i = 0; i < 3; i++) /* what was never read may not be in memory, where the kernel's handlers can't read it */
        all ^= *(const volatile char *)texts[i];
    for (i = 0; i < rounds; i++)
        all ^= look(i * 0x9e3779b97f4a7c15ul >> i % 64, i % 17, -(long)(i * i), texts[i % 5]);
    printf("%lx\n", all);
    return 0;
}
