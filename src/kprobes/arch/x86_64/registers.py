"""x86-64: `struct pt_regs` and the calling conventions, as tables.

Plain data and no imports: the compiler and every engine read it, also on the quick path from a cached plan.

Source: arch/x86/include/asm/ptrace.h; System V ABI, AMD64 supplement, 3.2.3 and A.2.
"""

from __future__ import annotations

# Memory order, 8 bytes each. Kernels before 2.6.25 spelt them with the `r`; both spellings mean the same register.
PT_REGS: tuple[str, ...] = (
    "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8",
    "ax", "cx", "dx", "si", "di", "orig_ax", "ip", "cs", "flags", "sp", "ss",
)  # fmt: skip

PT_REGS_SIZE = 8 * len(PT_REGS)

# The same register under its other spellings, as the assembler, gdb and old kernels have them.
ALIASES: dict[str, str] = {
    "rbp": "bp", "rbx": "bx", "rax": "ax", "rcx": "cx", "rdx": "dx", "rsi": "si", "rdi": "di",
    "orig_rax": "orig_ax", "rip": "ip", "eflags": "flags", "rflags": "flags", "rsp": "sp",
}  # fmt: skip

# Byte offset in `struct pt_regs` of each name, every spelling.
REGISTERS: dict[str, int] = {name: 8 * index for index, name in enumerate(PT_REGS)}
REGISTERS.update({alias: REGISTERS[name] for alias, name in ALIASES.items()})

# Integer arguments in registers; the seventh and later are on the stack, above the return address.
ARGUMENTS: tuple[str, ...] = ("di", "si", "dx", "cx", "r8", "r9")
KERNEL_ARGUMENTS = ARGUMENTS
SYSCALL_ARGUMENTS: tuple[str, ...] = ("di", "si", "dx", "r10", "r8", "r9")
SYSCALL_NUMBER = "orig_ax"
# At a function's entry `[sp]` is the return address, so argument 7 is at `[sp + 8]`.
STACK_ARGUMENTS_OFFSET = 8

RETURN = "ax"
RETURN_HIGH = "dx"
INSTRUCTION_POINTER = "ip"
STACK_POINTER = "sp"
FRAME_POINTER = "bp"
FLAGS = "flags"
WORD_SIZE = 8

# Who may change what in a call. `sp` is kept by everybody; flags are nobody's.
CALLER_SAVED: tuple[str, ...] = ("ax", "cx", "dx", "si", "di", "r8", "r9", "r10", "r11")
CALLEE_SAVED: tuple[str, ...] = ("bx", "bp", "r12", "r13", "r14", "r15")
