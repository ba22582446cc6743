/*
 * Calls functions with the arguments that a file says: agree [-w] FILE
 *
 * The file holds u64 words: an address, a size, what lies at that address, and then for each call the number of the
 * function, its six arguments, and what it returns. -w waits for a line on standard input first.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef unsigned long word;

static volatile word result;

#define FUNCTION(n)                                                                             \
	__attribute__((noipa)) word f##n(word a, word b, word c, word d, word e, word f)        \
	{                                                                                       \
		__asm__ volatile("# f" #n ::"r"(a), "r"(b), "r"(c), "r"(d), "r"(e), "r"(f));    \
		return result;                                                                  \
	}
#define NAME(n) f##n,
#define EIGHT(do, n) do(n##0) do(n##1) do(n##2) do(n##3) do(n##4) do(n##5) do(n##6) do(n##7)
#define ALL(do)                                                                                                 \
	EIGHT(do, 0) EIGHT(do, 1) EIGHT(do, 2) EIGHT(do, 3) EIGHT(do, 4) EIGHT(do, 5) EIGHT(do, 6) EIGHT(do, 7) \
	EIGHT(do, 10) EIGHT(do, 11) EIGHT(do, 12) EIGHT(do, 13) EIGHT(do, 14) EIGHT(do, 15) EIGHT(do, 16) EIGHT(do, 17)

ALL(FUNCTION)

static word (*const functions[])(word, word, word, word, word, word) = { ALL(NAME) };

static void must(int holds, const char *what)
{
	if (!holds) {
		perror(what);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	int waits = argc > 1 && !strcmp(argv[1], "-w");
	FILE *file = fopen(argv[1 + waits], "rb");
	word place[2], call[8];

	must(file && fread(place, sizeof(place), 1, file), "open");
	void *memory = mmap((void *)place[0], place[1], PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	must(memory == (void *)place[0] && fread(memory, place[1], 1, file), "mmap");
	if (waits)
		must(getchar() != EOF, "wait");
	while (fread(call, sizeof(call), 1, file)) {
		result = call[7];
		must(functions[call[0]](call[1], call[2], call[3], call[4], call[5], call[6]) == call[7], "call");
	}
	return 0;
}
