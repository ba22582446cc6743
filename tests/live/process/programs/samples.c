/* Asks a number a line, and gives work(number, 5) and the factorial of 4; `f` faults, `c` calls kernel_clone. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct kernel_clone_args {
  unsigned long flags;
  int *pidfd;
  unsigned long stack;
  unsigned long stack_size;
};

static volatile long sink;
static sigjmp_buf back;

__attribute__((noinline, noclone)) long work(long a, long b) {
  sink += a;
  return a * 3 + b;
}

__attribute__((noinline, noclone)) long factorial(long n) {
  if (n <= 1)
    return 1;
  long below = factorial(n - 1);
  sink += below;
  return n * below;
}

__attribute__((noinline, noclone)) long load(volatile long *from) { return *from; }

__attribute__((noinline, noclone)) long kernel_clone(struct kernel_clone_args *args) {
  sink += args->flags;
  return 4321;
}

static void on_fault(int number) { siglongjmp(back, number); }

int main(void) {
  struct kernel_clone_args args = {0x1200000, NULL, 0xabc000, 0x8000};
  char line[64];
  signal(SIGSEGV, on_fault);
  while (fgets(line, sizeof line, stdin)) {
    if (line[0] == 'c')
      printf("%ld\n", kernel_clone(&args));
    else if (line[0] != 'f')
      printf("%ld %ld\n", work(atol(line), 5), factorial(4));
    else if (sigsetjmp(back, 1))
      puts("fault");
    else
      printf("%ld\n", load((long *)8));
    fflush(stdout);
  }
}
