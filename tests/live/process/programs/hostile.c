/* After the line that says that probes are in place it calls work() for a while, then scribbles over every shared
 * mapping of kprobes that it finds in its own maps, calling work() now and then: "random" bytes, all "ones", or "records",
 * which look like the headers of a ring. It ends with the number of seconds that are given, or by its own doing. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t state = 88172645463325252u;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

__attribute__((noinline, noclone)) unsigned long work(const char *text, unsigned long size)
{
    __asm__ volatile("" ::: "memory");
    return size + text[0];
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static uint64_t word(const char *mode)
{
    uint64_t any = next();
    if (!strcmp(mode, "ones"))
        return ~0ul;
    if (!strcmp(mode, "records")) /* lengths, positions, flags: small, odd, huge */
        return any % 3 ? any % 4096 : any % 5 ? (any & 0xc000ffff) : any << 32;
    return any;
}

static void scribble(uint64_t *start, uint64_t *end, const char *mode)
{
    uint64_t *at;
    if (next() % 4 == 0)
        for (at = start; at < end; at += 1 + next() % 64)
            *at = word(mode);
    else
        for (unsigned i = 0; i < 20000; i++)
            start[next() % (end - start)] = word(mode);
}

int main(int argc, char **argv)
{
    const char *mode = argv[1];
    double end;
    uint64_t low[16], high[16];
    int found = 0;
    char line[512];
    FILE *maps;
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 1;
    for (int i = 0; i < 20000; i++)
        work(argv[0], i);
    maps = fopen("/proc/self/maps", "r");
    while (found < 16 && fgets(line, sizeof line, maps))
        if (strstr(line, "kprobes (deleted)") && strstr(line, "rw-s"))
            found += sscanf(line, "%lx-%lx", &low[found], &high[found]) == 2;
    fclose(maps);
    printf("mappings %d\n", found);
    fflush(stdout);
    for (end = now() + atof(argv[2]); now() < end;) {
        for (int i = 0; i < found; i++)
            scribble((uint64_t *)low[i], (uint64_t *)high[i], mode);
        if (argc > 3)
            work(argv[0], 1);
    }
    return 0;
}
