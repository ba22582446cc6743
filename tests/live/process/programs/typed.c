/* Calls handle() with structs of every sort, and counts the calls in global variables. */
#include <stdio.h>
#include <string.h>

struct inner {
  unsigned short code;
  unsigned char bytes[4];
};

struct header {
  unsigned magic;
  unsigned short length;
  char name[6];
  struct header *next;
  const char *path;
  struct inner inner;
  unsigned kind : 3;
  int level : 5;
  union {
    unsigned long number;
    double real;
  } value;
};

enum color { RED, GREEN = 2, BLUE };

int counter = 5;
static volatile long hidden = -7;
struct header last = {77, 3, "last", NULL, "/last", {9, {1, 2, 3, 4}}, 5, -3, {42}};

__attribute__((noinline, noclone)) int handle(struct header *header, const char *path, enum color color, int index) {
  counter++;
  asm volatile("" ::"r"(header), "r"(path), "r"(color), "r"(index) : "memory");
  return counter + index + (int)hidden;
}

int main(int argc, char **argv) {
  struct header first = {1, 300, "first", &last, argv[0], {7, {5, 6, 7, 8}}, 6, -1, {1UL << 40}};
  for (int i = 0; i < 6; i++)
    printf("%d\n", handle(&first, i % 2 ? argv[0] : "/a/path", i % 4, i));
  return argc - 1;
}
