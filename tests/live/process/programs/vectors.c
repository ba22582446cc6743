/* Vector registers, x87 and flags live across calls of probed functions that don't touch them. */
#include <cpuid.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Functions that preserve everything, as a compiler that knows them assumes (-fipa-ra). */
__asm__(".text\n"
        ".globl keeps_all\n.type keeps_all, @function\n"
        "keeps_all: nop\n nop\n nop\n nop\n nop\n ret\n.size keeps_all, . - keeps_all\n"
        ".globl keeps_flags\n.type keeps_flags, @function\n"
        "keeps_flags: lea 0(%rdi), %rax\n lea 1(%rax), %rax\n ret\n.size keeps_flags, . - keeps_flags\n"
        /* checks that all general registers and flags come through a call: rdi = 0 where they do */
        ".globl check_general\n.type check_general, @function\n"
        "check_general: push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov $1, %rbx\n mov $2, %rbp\n mov $3, %r12\n mov $4, %r13\n mov $5, %r14\n mov $6, %r15\n"
        "mov $7, %rcx\n mov $8, %rdx\n mov $9, %rsi\n mov $10, %rdi\n mov $11, %r8\n mov $12, %r9\n"
        "mov $13, %r10\n mov $14, %r11\n mov $15, %rax\n"
        "call keeps_all\n"
        "xor $1, %rbx\n xor $2, %rbp\n xor $3, %r12\n xor $4, %r13\n xor $5, %r14\n xor $6, %r15\n"
        "xor $7, %rcx\n xor $8, %rdx\n xor $9, %rsi\n xor $10, %rdi\n xor $11, %r8\n xor $12, %r9\n"
        "xor $13, %r10\n xor $14, %r11\n xor $15, %rax\n"
        "or %rbx, %rax\n or %rbp, %rax\n or %r12, %rax\n or %r13, %rax\n or %r14, %rax\n or %r15, %rax\n"
        "or %rcx, %rax\n or %rdx, %rax\n or %rsi, %rax\n or %rdi, %rax\n or %r8, %rax\n or %r9, %rax\n"
        "or %r10, %rax\n or %r11, %rax\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
        ".size check_general, . - check_general\n"
        /* AVX-512 through a call: rdi = 64 bytes in, rsi = 64 bytes out */
        ".globl through_avx512\n.type through_avx512, @function\n"
        "through_avx512: push %rbx\n mov %rsi, %rbx\n vmovdqu64 (%rdi), %zmm17\n vmovdqu64 (%rdi), %zmm3\n"
        "kxnorw %k1, %k1, %k1\n kmovw %k1, %k5\n call keeps_all\n"
        "kmovw %k5, %eax\n vpaddd %zmm17, %zmm3, %zmm4\n vmovdqu64 %zmm4, (%rbx)\n vzeroupper\n pop %rbx\n ret\n"
        ".size through_avx512, . - through_avx512\n"
        ".globl through_x87\n.type through_x87, @function\n"
        "through_x87: fldpi\n fld1\n call keeps_all\n faddp\n fistpll (%rdi)\n ret\n.size through_x87, . - through_x87\n");

long check_general(void);
long keeps_flags(long);
int through_avx512(const void *in, void *out);
void through_x87(int64_t *out);

int main(void)
{
    unsigned a, b = 0, c, d, in[16], out[16];
    long bad = 0, n = 0;
    int64_t number = 0, i, k;
    int wide = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 16 & 1);
    for (i = 0; i < 20000; i++) {
        bad += check_general() != 0;
        n++;
        bad += keeps_flags(i) != i + 1;
        through_x87(&number);
        n++;
        bad += number != 4;
        if (wide) {
            for (k = 0; k < 16; k++)
                in[k] = (unsigned)(i * 3 + k);
            memset(out, 0, sizeof out);
            bad += through_avx512(in, out) != 0xffff;
            n++;
            for (k = 0; k < 16; k++)
                bad += out[k] != 2 * in[k];
        }
    }
    printf("bad %ld\ncount keeps_all %ld\ncount keeps_flags 20000\n", bad, n);
    return bad != 0;
}
