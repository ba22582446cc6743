# What detours and handlers call. One blob, position-independent; the pool at its end is filled in by the engine.
#
# find_block: find, or claim, the block of the calling thread. In: r11 = thread pointer. Out: r10 = block; ZF set: it is
# the shared block, to be counted in with a lock prefix. Every other register is kept; flags are not.
# The owner table has 512 entries of (owner, block). An entry being claimed holds the owner with bit 0 set, so that a
# signal handler that interrupts the claim never sees an owner without its block.
.intel_syntax noprefix
.set GUARD, 32
.set RING, 40
.set RING_SIZE, 48
.set PENDING, 56
.set NUMBER, 64
.set HITS, 128
.set ORIG_AX, 0x78
.set STALE, 0x100000
.set SPINS, 2000
.set DISCARD, 0x40000000
.set PRODUCER, 4096
.set DATA, 8192

find_block:
 test r11,r11
 jz shared
 test r11b, 1
 jnz shared
 push rax
 push rcx
 push rdx
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
 add edx, 16
 dec ecx
 jnz next
full:
 pop rdx
 pop rcx
 pop rax
shared:
 mov r10, [rip+first]
 cmp r10d, r10d
 ret
found:
 mov r10, [r10+8]
own:
 pop rdx
 pop rcx
 pop rax
 test rsp, rsp
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
 mov edx, r11d
 jne again
 mov rdx,[rip+counter]
 mov eax, 1
 lock xadd [rdx], rax
 cmp eax, [rip+count]
 jae poison
 mov ecx, eax
 imul rax, [rip+stride]
 add rax, [rip+first]
 mov [rax+NUMBER], rcx
 mov [rax], r11
 mov ecx, [rip+tid]
 test ecx, ecx
 jz no_tid
 mov ecx, [r11+rcx]
 mov [rax+8], ecx
no_tid:
 mov [r10+8], rax
 mov [r10], r11
 mov r10, rax
 jmp own
poison:
 mov qword ptr [r10], 1
 jmp full
again:
 shr edx, 8
 jmp next

# enter: before a handler. In: rdi = pt_regs, rsi = number of the site. Out: ZF set: the handler may run, rdx = block,
# which is the thread's alone until the guard is cleared; else the hit is counted as missed. Clobbers rax, rcx, r10, r11.
# The guard holds the stack pointer of the handler that runs. A handler that was interrupted by a signal whose handler
# jumped away (siglongjmp) never clears it: a hit a little higher on the stack than the guard says so.
.p2align 4
enter_self:
 mov r11, fs:[0]
 jmp enter
.p2align 4
enter_register:
 rdfsbase r11
 test r11, r11
 jz enter_shared
enter:
 mov r10d, r11d
 shr r10d, 8
 and r10d, 0x1ff0
 add r10, [rip+table]
 cmp [r10], r11
 jne look
 mov r10, [r10+8]
ours:
 mov rax, [r10+GUARD]
 test rax, rax
 jnz busy
take:
 mov [r10+GUARD], rsp
entered:
 mov [rdi+ORIG_AX], r10
 mov rdx, r10
 inc qword ptr [r10+rsi*8+HITS]
 xor eax, eax
 ret
look:
 call find_block
 jnz ours
.p2align 4
enter_shared:
 mov r10, [rip+first]
 mov ecx, SPINS
spin:
 xor eax, eax
 lock cmpxchg [r10+GUARD], rsp
 je entered
 pause
 dec ecx
 jnz spin
 mov rax, [rip+missed]
 add rax, r10
 lock inc qword ptr [rax+rsi*8]
 or eax, 1
 ret
busy:
 mov rcx, rsp
 sub rcx, rax
 cmp rcx, STALE
 jb take
 mov rax, [rip+missed]
 add rax, r10
 inc qword ptr [rax+rsi*8]
 or eax, 1
 ret

# reserve: room for a record. C ABI: rdi = block, rsi = size of the record, rdx = number of the site; returns its address,
# or 0: counted as lost. A record never wraps: the end of the ring is filled with a discarded one.
.p2align 4
reserve:
 mov r8, [rdi+RING]
 test r8, r8
 jz lost
 mov r9, [rdi+RING_SIZE]
 mov r10, [r8+PRODUCER]
 lea rax, [rsi+15]
 and rax, -8
 lea rcx, [r9-1]
 and rcx, r10
 mov r11, r9
 sub r11, rcx
 cmp rax, r11
 ja wrap
fits:
 lea r11, [r10+rax]
 sub r11, [r8]
 cmp r11, r9
 ja lost
 add r10, rax
 mov [rdi+PENDING], r10
 mov [r8+rcx+DATA], esi
 mov dword ptr [r8+rcx+DATA+4], 0
 lea rax, [r8+rcx+DATA+8]
 ret
wrap:
 cmp rax, r9
 ja lost
 add r10, r11
 push rdx
 lea rdx, [r10+rax]
 sub rdx, [r8]
 cmp rdx, r9
 pop rdx
 ja lost
 sub r11d, 8
 or r11d, DISCARD
 mov [r8+rcx+DATA], r11d
 mov dword ptr [r8+rcx+DATA+4], 0
 xor ecx, ecx
 jmp fits
lost:
 add rdi, [rip+losses]
 inc qword ptr [rdi+rdx*8]
 xor eax, eax
 ret

# submit: publish what was reserved last. C ABI: rdi = block.
.p2align 4
submit:
 mov r8, [rdi+RING]
 mov rax, [rdi+PENDING]
 mov [r8+PRODUCER], rax
 ret

.p2align 3
table: .quad 0
counter: .quad 0
first: .quad 0
stride: .quad 0
missed: .quad 0
losses: .quad 0
count: .long 0
tid: .long 0
