/* The library of unload.c. */
long inside(long x)
{
    __asm__ volatile("");
    return x * 2;
}
