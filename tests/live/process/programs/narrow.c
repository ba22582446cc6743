/* A program of 32-bit code: it does nothing until it is killed. */
void _start(void)
{
    for (;;)
        __asm__ volatile("int $0x80" ::"a"(29)); /* pause */
}
