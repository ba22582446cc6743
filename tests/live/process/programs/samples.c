/* Answers lines: a number with work(number, 5) and the factorial of 4. `f` faults, `c` calls kernel_clone, `l PATH` loads
   a library and calls its function `inside`, `u` unloads it, `n` calls work 100,000 times. */
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
  char line[4096];
  void *library = NULL;
  signal(SIGSEGV, on_fault);
  while (fgets(line, sizeof line, stdin)) {
    if (line[0] == 'c')
      printf("%ld\n", kernel_clone(&args));
    else if (line[0] == 'l') {
      line[strcspn(line, "\n")] = 0;
      library = dlopen(line + 2, RTLD_NOW);
      printf("%ld\n", ((long (*)(long))dlsym(library, "inside"))(21));
    } else if (line[0] == 'u')
      printf("%d\n", dlclose(library));
    else if (line[0] == 'n') {
      long sum = 0;
      for (long i = 0; i < 100000; i++)
        sum += work(i, 0);
      printf("%ld\n", sum);
    } else if (line[0] != 'f')
      printf("%ld %ld\n", work(atol(line), 5), factorial(4));
    else if (sigsetjmp(back, 1))
      puts("fault");
    else
      printf("%ld\n", load((long *)8));
    fflush(stdout);
  }
}
