/* The library of plugins.c: its function is also called when it is loaded and when it is unloaded. */
static volatile long calls;

__attribute__((noinline, noclone)) long inside(long x)
{
    calls++;
    return x * 2;
}

__attribute__((constructor)) static void begin(void)
{
    inside(1);
    inside(2);
}

__attribute__((destructor)) static void end(void)
{
    inside(3);
}
