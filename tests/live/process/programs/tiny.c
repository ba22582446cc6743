/* Functions of 1 to 4 bytes, side by side without padding; jumps back into the first bytes of a function; functions
 * that begin with a call, a lock prefix, a branch; IFUNC. */
#include <stdio.h>

__asm__(".text\n.macro F name\n.globl \\name\n.type \\name, @function\n\\name:\n.endm\n"
        ".macro E name\n.size \\name, . - \\name\n.endm\n"
        ".p2align 4\n"
        "F one\n ret\nE one\n"
        "F two\n pop %rax\n jmp *%rax\nE two\n"
        "F three\n xor %eax, %eax\n ret\nE three\n"
        "F four\n mov %edi, %eax\n nop\n ret\nE four\n"
        "F loop_back\n xor %eax, %eax\n1: inc %eax\n cmp %edi, %eax\n jl 1b\n ret\nE loop_back\n"
        "F loop_first\n dec %edi\n jg loop_first\n mov %edi, %eax\n ret\nE loop_first\n"
        "F begins_with_call\n call three\n lea 5(%rax), %eax\n ret\nE begins_with_call\n"
        "F begins_with_lock\n lock incl (%rdi)\n mov (%rdi), %eax\n ret\nE begins_with_lock\n"
        "F begins_with_branch\n test %edi, %edi\n jz 1f\n mov $1, %eax\n ret\n1: mov $2, %eax\n ret\nE begins_with_branch\n"
        "F reads_itself\n lea 0(%rip), %rax\n2: lea 2b(%rip), %rcx\n sub %rcx, %rax\n ret\nE reads_itself\n"
        "F counts_down\n mov %edi, %ecx\n xor %eax, %eax\n3: inc %eax\n loop 3b\n ret\nE counts_down\n"
        "F skips_if_zero\n mov %edi, %ecx\n jrcxz 4f\n mov $3, %eax\n ret\n4: mov $4, %eax\n ret\nE skips_if_zero\n");

void one(void);
void two(void);
int three(void), four(int), loop_back(int), loop_first(int), begins_with_call(void), begins_with_lock(int *);
int begins_with_branch(int), counts_down(int), skips_if_zero(int);
long reads_itself(void);

static int chosen(int x) { return x + 41; }
static int (*choose(void))(int) { return chosen; }
int indirect(int x) __attribute__((ifunc("choose")));

int main(void)
{
    long sum = 0;
    int i, shared = 0;
    for (i = 0; i < 5000; i++) {
        one();
        two();
        sum += three() + four(i) + loop_back(i % 5 + 1) + loop_first(i % 4) + begins_with_call();
        sum += begins_with_lock(&shared) + begins_with_branch(i & 1) + reads_itself() + counts_down(i % 7 + 1);
        sum += skips_if_zero(i % 3) + indirect(i);
    }
    printf("sum %ld shared %d\n", sum, shared);
    printf("count one 5000\ncount two 5000\ncount four 5000\ncount three 10000\ncount begins_with_call 5000\n");
    printf("count begins_with_lock 5000\ncount begins_with_branch 5000\ncount reads_itself 5000\n");
    printf("count counts_down 5000\ncount skips_if_zero 5000\ncount loop_back 5000\ncount chosen 5000\n");
    return 0;
}
