"""The register tables of each architecture: `struct pt_regs` layouts and calling conventions as data.

Sources: arch/{x86,arm64}/include/{asm,uapi/asm}/ptrace.h; System V ABI for i386; AAPCS64.
"""

from __future__ import annotations

from kprobes.arch.x86_64 import registers as x86_64
from kprobes.errors import UnsupportedError
from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class RegisterTable:
    """What there is to know about one architecture's registers.

    *offsets*: byte offset in `struct pt_regs` by name, every spelling; *names*: the kernel's names in memory order;
    *aliases*: the other spellings, each with the kernel's. *event_names* are those that kernel event definitions know.
    *arguments*: integer arguments of a user-space C function; *kernel_arguments*: those of a kernel function;
    *syscall_arguments*: those of a system call. Arguments beyond them lie on the stack from
    *stack_arguments_offset* bytes above sp at a function's entry: a call has pushed the return address, which the
    return pops, where that isn't 0. *trap_length* is by how much the instruction pointer of a kprobe's hit lies
    behind the probed instruction. *link* is the register that a call leaves the return address in, empty where it
    pushes it. *size* and *word_size* are bytes.
    """

    name: str
    size: int
    word_size: int
    names: tuple[str, ...]
    offsets: dict[str, int]
    aliases: dict[str, str]
    event_names: tuple[str, ...]
    arguments: tuple[str, ...]
    kernel_arguments: tuple[str, ...]
    syscall_arguments: tuple[str, ...]
    syscall_number: str
    result: str
    instruction_pointer: str
    stack_pointer: str
    frame_pointer: str
    flags: str
    stack_arguments_offset: int
    trap_length: int
    link: str = ""

    def canonical(self, name: str) -> str:
        """Return the kernel's name of the register that *name* spells in any way."""
        return self.aliases.get(name, name)


def _offsets(names: tuple[str, ...], word_size: int, aliases: dict[str, str]) -> dict[str, int]:
    offsets = {name: word_size * index for index, name in enumerate(names)}
    offsets.update({alias: offsets[name] for alias, name in aliases.items()})
    return offsets


X86_64 = RegisterTable(
    name="x86_64",
    size=x86_64.PT_REGS_SIZE,
    word_size=x86_64.WORD_SIZE,
    names=x86_64.PT_REGS,
    offsets=x86_64.REGISTERS,
    aliases=x86_64.ALIASES,
    event_names=x86_64.PT_REGS,
    arguments=x86_64.ARGUMENTS,
    kernel_arguments=x86_64.KERNEL_ARGUMENTS,
    syscall_arguments=x86_64.SYSCALL_ARGUMENTS,
    syscall_number=x86_64.SYSCALL_NUMBER,
    result=x86_64.RETURN,
    instruction_pointer=x86_64.INSTRUCTION_POINTER,
    stack_pointer=x86_64.STACK_POINTER,
    frame_pointer=x86_64.FRAME_POINTER,
    flags=x86_64.FLAGS,
    stack_arguments_offset=x86_64.STACK_ARGUMENTS_OFFSET,
    trap_length=1,
)

_I386_NAMES = (
    "bx", "cx", "dx", "si", "di", "bp", "ax", "ds", "es", "fs", "gs", "orig_ax", "ip", "cs", "flags", "sp", "ss",
)  # fmt: skip
_I386_ALIASES = {f"e{name}": name for name in ("bx", "cx", "dx", "si", "di", "bp", "ax", "ip", "flags", "sp")}
_I386_ALIASES["orig_eax"] = "orig_ax"

# The kernel is built with -mregparm=3; user space passes everything on the stack.
I386 = RegisterTable(
    name="i386",
    size=4 * len(_I386_NAMES),
    word_size=4,
    names=_I386_NAMES,
    offsets=_offsets(_I386_NAMES, 4, _I386_ALIASES),
    aliases=_I386_ALIASES,
    event_names=_I386_NAMES,
    arguments=(),
    kernel_arguments=("ax", "dx", "cx"),
    syscall_arguments=("bx", "cx", "dx", "si", "di", "bp"),
    syscall_number="orig_ax",
    result="ax",
    instruction_pointer="ip",
    stack_pointer="sp",
    frame_pointer="bp",
    flags="flags",
    stack_arguments_offset=4,
    trap_length=1,
)

_AARCH64_NAMES = (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate")
_AARCH64_ALIASES = {"fp": "x29", "lr": "x30", "ip": "pc", "flags": "pstate"}

# `struct user_pt_regs`, with which the kernel's larger `struct pt_regs` begins. x30 holds the return address, so
# stack arguments begin at sp itself.
AARCH64 = RegisterTable(
    name="aarch64",
    size=8 * len(_AARCH64_NAMES),
    word_size=8,
    names=_AARCH64_NAMES,
    offsets=_offsets(_AARCH64_NAMES, 8, _AARCH64_ALIASES),
    aliases=_AARCH64_ALIASES,
    event_names=(*_AARCH64_NAMES, "lr"),
    arguments=tuple(f"x{number}" for number in range(8)),
    kernel_arguments=tuple(f"x{number}" for number in range(8)),
    syscall_arguments=tuple(f"x{number}" for number in range(6)),
    syscall_number="x8",
    result="x0",
    instruction_pointer="pc",
    stack_pointer="sp",
    frame_pointer="x29",
    flags="pstate",
    stack_arguments_offset=0,
    trap_length=0,
    link="x30",
)

TABLES: dict[str, RegisterTable] = {table.name: table for table in (X86_64, I386, AARCH64)}

# What `uname -m` and others call the same architectures.
_SPELLINGS = {"amd64": "x86_64", "x86-64": "x86_64", "i486": "i386", "i586": "i386", "i686": "i386", "arm64": "aarch64"}


def machine_name(spelling: str) -> str:
    """Return the kernel's name of an architecture, however it is spelt; of an unknown one the spelling."""
    name = spelling.lower()
    return _SPELLINGS.get(name, name)


def registers(arch: str) -> RegisterTable:
    """Return the register table of *arch*, by its kernel name or as `uname -m` spells it.

    Raises:
        UnsupportedError: there is no table for *arch*.
    """
    table = TABLES.get(machine_name(arch))
    if table is None:
        raise UnsupportedError(f"architecture {arch!r} is not known", hint=f"known: {', '.join(sorted(TABLES))}")
    return table
