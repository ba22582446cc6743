"""Which register each parameter of a C function arrives in, as the number of the integer argument.

Numbers go on behind the registers: those arguments lie on the stack, a word each.

Source: System V ABI, AMD64 supplement, 3.2.3 (the kernel's fentry counts its arguments in the same order); AAPCS64,
6.8; for i386 the System V ABI, and GCC's `regparm(3)`, with which the kernel is built.
"""

from __future__ import annotations

from kprobes.arch.registers import registers
from kprobes.model.ctype import Array, CType, Float, Function, Int, Struct, sizeof

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.model.ctype import Types

    Indexes = tuple[int | None, ...]


def integer_indexes(function: Function, types: Types, arch: str = "x86_64", *, kernel: bool = True) -> Indexes:
    """Return for each parameter its number among the integer arguments; None where it isn't one or can't be told.

    *kernel*: the function is of the kernel, not of a program, which makes a difference on i386.
    """
    table = registers(arch)
    count = len(table.kernel_arguments if kernel else table.arguments)
    return _RULES[table.name](function, types, count)


def _x86_64(function: Function, types: Types, count: int) -> Indexes:
    """A value goes to registers if they suffice for it; later, smaller ones still get those that are left."""
    found: list[int | None] = []
    following = 1 if _in_memory(function.returns) else 0  # the address of a large result goes first
    shifted = False
    for parameter in function.parameters:
        words = _words(parameter.type, types, count)
        if words == 1:
            lost = shifted and following >= count
            found.append(None if lost else following)
            following += 1
            continue
        found.append(None)
        if words > 1 and following + words <= count:
            following += words
        elif words:
            shifted = True  # it lies on the stack, among the later arguments
    return tuple(found)


def _aarch64(function: Function, types: Types, count: int) -> Indexes:
    """A value that the registers don't suffice for goes to the stack, and so do all later ones. A large struct is a
    copy that its address stands for; the address of a large result has a register of its own (x8)."""
    found: list[int | None] = []
    following, shifted = 0, False
    for parameter in function.parameters:
        ctype = parameter.type
        words = _aarch64_words(ctype, types)
        if isinstance(ctype, Int) and words == 2:
            following += following % 2  # a pair begins with an even register
        alone = words == 1 and not isinstance(ctype, Struct)
        found.append(following if alone and not (shifted and following >= count) else None)
        if words > 1 and following + words > count:
            following, shifted = count, True
        else:
            following += words
    return tuple(found)


def _i386(function: Function, _types: Types, count: int) -> Indexes:
    """Words of four bytes, first in registers; when a value doesn't fit into what is left, the rest is on the stack."""
    found: list[int | None] = []
    following = 1 if isinstance(function.returns, Struct) else 0
    shifted = False
    for parameter in function.parameters:
        ctype = parameter.type
        words = 1 if _is_word(ctype) else -(-sizeof(ctype) // 4)
        single = words == 1 and not isinstance(ctype, Float | Struct)
        in_registers = following + words <= count and not isinstance(ctype, Float)
        if not in_registers and following < count:
            shifted = shifted or isinstance(ctype, Float) or words > 1
            following = following if isinstance(ctype, Float) else count
        found.append(following if single and not (shifted and following >= count) else None)
        if in_registers or following >= count:
            following += words
    return tuple(found)


_RULES: dict[str, Callable[[Function, Types, int], Indexes]] = {"x86_64": _x86_64, "aarch64": _aarch64, "i386": _i386}


_MOST_VECTOR = 32  # four floating-point members in vector registers


def _is_word(ctype: CType) -> bool:
    return not isinstance(ctype, Int | Float | Struct)


def _in_memory(ctype: CType) -> bool:
    return isinstance(ctype, Struct) and sizeof(ctype) > 16


def _words(ctype: CType, types: Types, count: int) -> int:
    """Return how many integer registers a value takes on x86-64; 0 for vector registers, more than *count* for
    memory."""
    if isinstance(ctype, Float):
        return 0 if sizeof(ctype) <= 8 else count + 1
    if isinstance(ctype, Int):
        return -(-ctype.size // 8)
    if not isinstance(ctype, Struct):
        return 1
    if _in_memory(ctype) or not sizeof(ctype):
        return count + 1
    return len(_halves_with_integers(ctype, types))


def _aarch64_words(ctype: CType, types: Types) -> int:
    """Return how many general registers a value takes; 0 for vector registers."""
    if isinstance(ctype, Float):
        return 0
    if isinstance(ctype, Int):
        return -(-ctype.size // 8)
    if not isinstance(ctype, Struct):
        return 1
    if sizeof(ctype) <= _MOST_VECTOR and not _halves_with_integers(ctype, types):
        return 0
    return 1 if _in_memory(ctype) else -(-sizeof(ctype) // 8)


def _halves_with_integers(struct: Struct, types: Types) -> set[int]:
    """Return which 8-byte halves of a small *struct* hold anything but floating-point numbers."""
    halves: set[int] = set()
    for name in types.member_names(struct):
        member = types.member(struct, name)
        if member is None:
            continue
        element = member.type.element if isinstance(member.type, Array) else member.type
        start = member.bit_offset // 64
        end = max(start, (member.bit_offset + 8 * sizeof(member.type) - 1) // 64)
        if isinstance(element, Float):
            continue
        if isinstance(element, Struct):
            inner = _halves_with_integers(element, types)
            halves |= {start + half for half in inner}
        else:
            halves |= set(range(start, end + 1))
    return halves
