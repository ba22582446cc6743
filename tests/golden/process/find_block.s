# find_block: find, or claim, the block of the calling thread. In: r11 = fs base. Out: r10 = block; ZF set: it is the
# shared block, to be counted in with a lock prefix. Every other register is kept; flags are not.
# The owner table has 512 entries of (owner, block). An entry being claimed holds the owner with bit 0 set, so that a
# signal handler that interrupts the claim never sees an owner without its block.
.intel_syntax noprefix
find_block:
 test r11,r11
 jz shared
 test r11b, 1
 jnz shared
 push rax
 push rcx
 push rdx
 mov r10, [rip+counter]       # address of next_block
 mov rax, [r10]
 mov ecx, 16
 mov edx, r11d
 shr edx, 8
next:
 and edx, 0x1ff0
 mov r10, [rip+table]
 add r10, rdx
 mov rax, [r10]
 cmp rax, r11
 je found
 test rax, rax
 jz claim
advance:
 add edx, 16
 dec ecx
 jnz next
 pop rdx
 pop rcx
 pop rax
shared:
 mov r10, [rip+first]
 cmp r10d, r10d               # ZF
 ret
found:
 mov r10, [r10+8]
 pop rdx
 pop rcx
 pop rax
 test rsp, rsp               # not zero
 ret
claim:
 mov rdx,[rip+counter]
 mov eax,[rip+count]
 cmp [rdx], rax
 jae full
 push r11
 or r11, 1
 xor eax,eax
 lock cmpxchg [r10], r11
 pop r11
 mov edx, r11d   # lost the race: look again from the start
 jne again
 mov rdx,[rip+counter]
 mov eax, 1
 lock xadd [rdx], rax
 cmp eax, [rip+count]
 jae poison
 imul rax, [rip+stride]
 add rax, [rip+first]
 mov [rax], r11
 mov ecx, [rip+tid]
 test ecx, ecx
 jz notid
 mov ecx, [r11+rcx]
 mov [rax+8], ecx
notid:
 mov [r10+8], rax
 mov [r10], r11
 mov r10, rax
 pop rdx
 pop rcx
 pop rax
 test rsp, rsp
 ret
poison:
 mov qword ptr [r10], 1
full:
 pop rdx
 pop rcx
 pop rax
 jmp shared
again:
 shr edx, 8
 jmp next
.p2align 3
table: .quad 0
counter: .quad 0
first: .quad 0
stride: .quad 0
count: .long 0
tid: .long 0
