/* Calls work() when told to: for each line "THREADS CALLS" on standard input it prints the processor time of one call in
 * nanoseconds, that of the slowest thread. */
#include <pthread.h>
#include <stdio.h>
#include <time.h>

__attribute__((noinline, noclone)) long work(long a, long b)
{
    long values[4] = {a, b, a ^ b, a + b};
    __asm__ volatile("" : : "r"(values) : "memory");
    return values[a & 3] + values[b & 3];
}

static long calls;

static void *loop(void *result)
{
    struct timespec begin, end;
    long sum = 0;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    for (long i = 0; i < calls; i++)
        sum += work(i, sum);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    *(double *)result = ((end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec)) / calls + (sum == 42);
    return 0;
}

int main(void)
{
    int threads;
    setvbuf(stdout, 0, _IOLBF, 0);
    while (scanf("%d %ld", &threads, &calls) == 2) {
        double results[16] = {0}, most = 0;
        pthread_t all[16];
        for (int i = 1; i < threads; i++)
            pthread_create(&all[i], 0, loop, &results[i]);
        loop(&results[0]);
        for (int i = 1; i < threads; i++)
            pthread_join(all[i], 0);
        for (int i = 0; i < threads; i++)
            most = results[i] > most ? results[i] : most;
        printf("%.3f\n", most);
    }
    return 0;
}
