#include "store.h"

struct opaque {
    int filled;
};
struct opaque whole;
volatile int drain;

__attribute__((noipa)) static int same_name(int number)
{
    drain += number;
    return 2;
}

__attribute__((noipa)) int elsewhere(int n)
{
    return same_name(n) + in_header(n);
}
