int elsewhere(int n);

static inline __attribute__((always_inline)) int in_header(int x)
{
    return x + 40;
}
