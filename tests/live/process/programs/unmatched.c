/* Calls of work() that return, and calls that don't: left by longjmp, by the end of their thread, still inside. */
#include <pthread.h>
#include <setjmp.h>
#include <unistd.h>

static jmp_buf out;
static volatile int inside;

__attribute__((noinline)) int work(int how)
{
	if (how == 1)
		longjmp(out, 1);
	if (how == 2)
		pthread_exit(0);
	if (how == 3) {
		inside = 1;
		pause();
	}
	__asm__ volatile("" ::: "memory");
	return how;
}

static void *run(void *how)
{
	return (void *)(long)work((int)(long)how);
}

int main(void)
{
	pthread_t one, other;

	for (int how = 100; how < 110; how++)
		work(how);
	if (!setjmp(out))
		work(1);
	pthread_create(&one, 0, run, (void *)3);
	pthread_create(&other, 0, run, (void *)2);
	pthread_join(other, 0);
	while (!inside)
		usleep(100);
	return 0;
}
