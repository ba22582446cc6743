/* A loop whose instructions a test names by their labels; prints what the registers hold at its end. */
#include <stdio.h>
#include <stdlib.h>

unsigned long steps(unsigned long turns, unsigned long *found);
__asm__(
    ".text\n.globl steps\n.type steps, @function\nsteps:\n"
    "push %rbx\n"
    "mov %rsi, %rbx\n"
    "xor %eax, %eax\nxor %edx, %edx\nxor %ecx, %ecx\nxor %r8d, %r8d\nxor %r9d, %r9d\nxor %r10d, %r10d\n"
    "1:\n"
    "at_add: add $3, %rax\n"
    "at_inc: inc %rdx\n"
    "at_lea: lea 0x12345(%rcx), %rcx\n"
    "at_load: mov (%rbx), %r11\n"
    "at_sum: add %r11, %r10\n"
    "test $1, %dil\n"
    "at_jz: jz 2f\n"
    "at_odd: add $100, %r8\n"
    "2:\n"
    "at_call: call helper\n"
    "at_dec: dec %rdi\n"
    "at_jnz: jnz 1b\n"
    "mov %rax, (%rbx)\nmov %rdx, 8(%rbx)\nmov %rcx, 16(%rbx)\nmov %r8, 24(%rbx)\nmov %r9, 32(%rbx)\nmov %r10, 40(%rbx)\n"
    "pop %rbx\n"
    "at_ret: ret\n"
    ".size steps, . - steps\n"
    ".type helper, @function\nhelper:\n"
    "inc %r9\n"
    "ret\n"
    ".size helper, . - helper\n");

int main(int argc, char **argv)
{
    unsigned long found[6] = {7};
    steps(argc > 1 ? strtoul(argv[1], NULL, 0) : 10, found);
    printf("%lu %lu %lu %lu %lu %lu\n", found[0], found[1], found[2] / 0x12345, found[3], found[4], found[5]);
    return 0;
}
