/* Calls a function with structures, strings and pointers that lead nowhere, as often as it is told. */
#include <stdio.h>
#include <stdlib.h>

struct record {
	unsigned kind : 3, flags : 7;
	char name[16];
	const char *texts[3];
	struct record *next;
	unsigned short sizes[4];
};

int global = 4242;

__attribute__((noinline)) long work(struct record *record, const char *text, long n)
{
	__asm__ volatile("" ::: "memory");
	return n * 2 + record->kind + (text ? text[0] : 0);
}

int main(int argc, char **argv)
{
	struct record second = {5, 99, "second", {"x", NULL, "z"}, NULL, {9, 8, 7, 6}};
	struct record first = {3, 77, "first", {"alpha", "beta", "gamma"}, &second, {1, 2, 3, 4}};
	long sum = 0, count = argc > 1 ? atol(argv[1]) : 3;

	for (long i = 0; i < count; i++) {
		sum += work(&first, "hello", i);
		sum += work(&second, i ? NULL : "x", -i);
	}
	return sum == 0;
}
