/* Calls work() about once a millisecond, until it is killed. */
#include <unistd.h>

__attribute__((noinline)) int work(int number, long more)
{
    __asm__ volatile("" ::: "memory");
    return number + (int)more;
}

int main(void)
{
    for (int i = 0;; i++) {
        work(i, i * 2L);
        usleep(500);
    }
}
