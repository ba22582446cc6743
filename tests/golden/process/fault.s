# How the hand lets a stopped thread run a handler. In: rbx = handler, rdi = pt_regs, rsi = number of the site, the stack
# aligned. It ends at a system call that is never made, with ebx = what the handler returned (0 if it was not to run).
# `touch` comes there too, unless the thread may not write at rdi.
.intel_syntax noprefix
.set GUARD, 32

touch:
 mov [rdi], al
 jmp end
run:
 .byte 0xe8, 0, 0, 0, 0 # call enter
 jne out
 mov r12, rdx
 call rbx
 mov qword ptr [r12+GUARD], 0
 mov ebx, eax
 jmp end
out:
 xor ebx, ebx
end:
 or eax, -1
 syscall
 ud2
