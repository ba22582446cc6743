/* A program with one of each thing that handlers name by type. */
#include <stdlib.h>
#include "store.h"

typedef unsigned int count_t;
enum color { RED = 1, GREEN = -2, BLUE = 300 };
enum wide { NARROW = 200, BROAD = 0x80000000u };
struct inner {
    short a;
    union {
        int b;
        float f;
    };
};
struct item {
    const char *name;
    count_t flags : 3;
    count_t mode : 5;
    int neg : 4;
    struct inner parts[2][4];
    enum color color;
    struct item *next;
    int (*visit)(struct item *, long);
    unsigned long long big : 40;
    _Bool ready;
    char tail[];
};
struct opaque;
typedef struct { int x, y; } point_t;
typedef float quad __attribute__((vector_size(16)));

count_t total;
struct item *head;
enum wide width = BROAD;
static volatile int sink;

__attribute__((noipa)) static int visit(struct item *item, const char *label, int n, double weight, struct opaque *o)
{
    sink += n;
    return item->flags + n + (label != 0) + (int)weight + (o != 0);
}

static inline __attribute__((always_inline)) int twice(int x)
{
    sink += x;
    return x * 2 + (x >> 3);
}

__attribute__((noipa)) int work(int k, struct inner by_value, long last, ...)
{
    int sum = twice(k);
    sum += twice(by_value.a);
    return sum + (int)last;
}

__attribute__((noipa)) int blend(quad colors, long double exact, point_t at, int after)
{
    return (int)colors[0] + (int)exact + at.x + after;
}

__attribute__((noipa)) static int same_name(struct item *mine)
{
    sink += mine->color;
    return 1;
}

__attribute__((noipa)) void nothing(void)
{
    sink++;
}

int main(int argc, char **argv)
{
    static struct item first = {"one", 5, 7, -3, .color = GREEN};
    head = &first;
    for (int i = 0; i < (argc > 1 ? atoi(argv[1]) : 3); i++) {
        total += visit(&first, "label", i, 1.5, 0);
        total += work(i, first.parts[0][1], 9);
        total += blend((quad){1, 2, 3, 4}, 1.0L, (point_t){1, 2}, i) + same_name(&first) + elsewhere(i);
        nothing();
    }
    return 0;
}
