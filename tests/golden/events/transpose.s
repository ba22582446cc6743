# Records become columns. Plain functions of the System V ABI; position-independent.
#
# uniform: rdi = first record, rsi = bytes from one to the next, rdx = their number, ecx = the first word that each must
# have, r8d = the third. Returns how many of them have, up to the first that hasn't.
#
# transpose: rdi = columns, rsi = their end, rdx = first record, rcx = bytes from one to the next, r8 = their number.
# A column is six words: what it is, the offset of its field in a record, where its next value goes, the field's size,
# and for strings where the next text goes and where texts begin. Every byte of a record is read once, so it doesn't
# matter if somebody writes to it meanwhile. Records are taken 128 at a time, so that they stay in the first cache for
# all columns.
.intel_syntax noprefix
.set KIND, 0
.set PLACE, 8
.set TO, 16
.set WIDTH, 24
.set TEXT, 32
.set BEGIN, 40
.set STEP, 48
.set ROWS, 128

uniform:
 xor eax, eax
 test rdx, rdx
 jz different
1:
 cmp [rdi], ecx
 jne different
 cmp [rdi+8], r8d
 jne different
 add rdi, rsi
 inc rax
 cmp rax, rdx
 jb 1b
different:
 ret

.p2align 4, 0xcc
transpose:
 push rbx
 push rbp
 push r12
 push r13
 push r14
 push r15
rows:
 test r8, r8
 jz done
 mov r9d, ROWS
 cmp r8, r9
 cmovb r9, r8
 mov r10, rdi
column:
 cmp r10, rsi
 je next_rows
 mov r11, [r10+PLACE]
 add r11, rdx
 mov rbx, [r10+TO]
 mov rbp, r9
 mov eax, [r10+KIND]
 cmp eax, 8
 je quads
 cmp eax, 4
 je words
 cmp eax, 2
 je halves
 cmp eax, 1
 je bytes
 cmp eax, 3
 je bounded
 jmp texts
next_column:
 mov [r10+TO], rbx
 add r10, STEP
 jmp column
next_rows:
 mov rax, r9
 imul rax, rcx
 add rdx, rax
 sub r8, r9
 jmp rows
done:
 pop r15
 pop r14
 pop r13
 pop r12
 pop rbp
 pop rbx
 ret

.p2align 4, 0xcc
quads:
 mov rax, [r11]
 mov [rbx], rax
 add r11, rcx
 add rbx, 8
 dec rbp
 jnz quads
 jmp next_column

.p2align 4, 0xcc
words:
 mov eax, [r11]
 mov [rbx], eax
 add r11, rcx
 add rbx, 4
 dec rbp
 jnz words
 jmp next_column

.p2align 4, 0xcc
halves:
 movzx eax, word ptr [r11]
 mov [rbx], ax
 add r11, rcx
 add rbx, 2
 dec rbp
 jnz halves
 jmp next_column

.p2align 4, 0xcc
bytes:
 movzx eax, byte ptr [r11]
 mov [rbx], al
 add r11, rcx
 inc rbx
 dec rbp
 jnz bytes
 jmp next_column

# Words of four bytes, none above WIDTH; TEXT holds the largest.
.p2align 4, 0xcc
bounded:
 mov r12, [r10+WIDTH]
 mov r13, [r10+TEXT]
1:
 mov eax, [r11]
 cmp rax, r12
 cmova rax, r12
 cmp rax, r13
 cmova r13, rax
 mov [rbx], eax
 add r11, rcx
 add rbx, 4
 dec rbp
 jnz 1b
 mov [r10+TEXT], r13
 jmp next_column

# Strings up to their NUL, one after the other; the value is where each ends. Up to 8 bytes are written behind the last.
.p2align 4, 0xcc
texts:
 push rdi
 push rsi
 push r8
 mov r8, [r10+WIDTH]
 mov r13, [r10+TEXT]
 mov r12, 0x0101010101010101
 mov r14, r12
 shl r14, 7
text:
 mov r15, r11
 mov rsi, r8
 sub rsi, 8
 jb rest
eight:
 mov rax, [r15]
 mov [r13], rax
 mov rdi, rax
 not rdi
 sub rax, r12
 and rax, rdi
 and rax, r14
 jnz ends
 add r13, 8
 add r15, 8
 sub rsi, 8
 jae eight
rest:
 add rsi, 8
 jz ended
1:
 movzx eax, byte ptr [r15]
 test eax, eax
 jz ended
 mov [r13], al
 inc r13
 inc r15
 dec rsi
 jnz 1b
 jmp ended
ends:
 bsf rax, rax
 shr eax, 3
 add r13, rax
ended:
 mov rax, r13
 sub rax, [r10+BEGIN]
 mov [rbx], eax
 add rbx, 4
 add r11, rcx
 dec rbp
 jnz text
 mov [r10+TEXT], r13
 pop r8
 pop rsi
 pop rdi
 jmp next_column
