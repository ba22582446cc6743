/* Waits for a line, then calls work() COUNT times in each of THREADS threads; with a third argument in a child, too. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct pair {
	short low, high;
	unsigned int bits;
};

static long count;
static char text[] = "some \"text\"";
static struct pair pair = {-3, 7, 0xabcd1234};

__attribute__((noinline)) long work(long number, const char *name, struct pair *both)
{
	return number * 2 + name[0] + both->low;
}

static void *turn(void *argument)
{
	long sum = 0;

	for (long number = 0; number < count; number++)
		sum += work(number, text, &pair);
	*(volatile long *)argument = sum;
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = atoi(argv[2]);
	pthread_t known[64];
	long sums[64];

	count = atol(argv[1]);
	if (getchar() == EOF)
		return 1;
	if (argc > 3 && !fork()) {
		turn(sums);
		return 0;
	}
	for (int number = 1; number < threads; number++)
		pthread_create(&known[number], NULL, turn, &sums[number]);
	turn(sums);
	for (int number = 1; number < threads; number++)
		pthread_join(known[number], NULL);
	if (argc > 3)
		wait(NULL);
	return 0;
}
