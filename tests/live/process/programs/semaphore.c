/* A program with static probes: it calls `traced` and `other` only while somebody has counted their semaphores up.
 *
 * For each line of its input it tells both semaphores, and how often each function was called for it.
 */
#include <stdio.h>
#include <stdlib.h>

#define SEMAPHORE __attribute__((section(".probes"), used, visibility("hidden")))

volatile unsigned short traced_semaphore SEMAPHORE;
volatile unsigned short other_semaphore SEMAPHORE;

__attribute__((noinline, noclone)) long traced(long number, const char *line)
{
	__asm__ volatile("" : : "r"(line) : "memory");
	return 3 * number;
}

__attribute__((noinline, noclone)) long other(long number)
{
	__asm__ volatile("" : : : "memory");
	return number + 7;
}

void once(long number, const char *line)
{
	long seen = 0, heard = 0;

	if (traced_semaphore)
		seen = traced(number, line) == 3 * number;
	if (other_semaphore)
		heard = other(number) == number + 7;
	printf("%u %u %ld %ld\n", traced_semaphore, other_semaphore, seen, heard);
	fflush(stdout);
}

int main(void)
{
	char *line = NULL;
	size_t room = 0;
	long number;

	printf("ready\n");
	fflush(stdout);
	for (number = 0; getline(&line, &room, stdin) > 0; number++)
		once(number, line);
	return 0;
}
