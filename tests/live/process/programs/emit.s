# A handler as a compiler would write it: emits a record of 40 bytes with the site, two arguments and the cycle counter,
# and counts in the map "total" the sum of the first argument. rdi = pt_regs, rsi = site, rdx = block.
.intel_syntax noprefix
 push rbx
 push rbp
 push r12
 mov rbx, rdi
 mov rbp, rsi
 mov r12, rdx
 movabs rax, 0x1111111111111111   # map "total"
 mov rcx, [rbx + 112]              # di
 lock add [rax], rcx
 mov rdi, rdx
 mov rdx, rsi
 mov esi, 40
 movabs rax, 0x2222222222222222   # helper "reserve"
 call rax
 test rax, rax
 jz 1f
 mov dword ptr [rax], 0
 mov [rax+4], ebp
 mov rcx, [rbx + 112]
 mov [rax+8], rcx
 mov rcx, [rbx + 104]              # si
 mov [rax+16], rcx
 mov rcx, rax
 rdtsc
 shl rdx, 32
 or rax, rdx
 mov [rcx+24], rax
 mov eax, [r12+8]                  # the block's tid
 mov [rcx+32], rax
 mov rdi, r12
 movabs rax, 0x3333333333333333   # helper "submit"
 call rax
1:
 pop r12
 pop rbp
 pop rbx
 xor eax, eax
 ret
