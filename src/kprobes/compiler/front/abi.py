"""Which register each parameter of a C function arrives in, as the number of the integer argument.

Source: System V ABI, AMD64 supplement, 3.2.3. The kernel's fentry counts its arguments in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.model.ctype import Array, CType, Float, Function, Int, Struct, sizeof

if TYPE_CHECKING:
    from kprobes.model.ctype import Types

REGISTERS = 6


def integer_indexes(function: Function, types: Types) -> tuple[int | None, ...]:
    """Return for each parameter its number among the integer arguments; None where it isn't one or can't be told.

    From 6 on the arguments lie on the stack, where the numbering holds as long as each takes 8 bytes.
    """
    found: list[int | None] = []
    following = 1 if _in_memory(function.returns) else 0  # the address of a large result goes first
    shifted = False
    for parameter in function.parameters:
        words = _words(parameter.type, types)
        if words == 1:
            lost = shifted and following >= REGISTERS
            found.append(None if lost else following)
            following += 1
            continue
        found.append(None)
        if words > 1 and following + words <= REGISTERS:
            following += words
        elif words:
            shifted = True  # it lies on the stack, among the later arguments
    return tuple(found)


def _in_memory(ctype: CType) -> bool:
    return isinstance(ctype, Struct) and sizeof(ctype) > 16


def _words(ctype: CType, types: Types) -> int:
    """Return how many integer registers a value takes; 0 for vector registers, more than there are for memory."""
    if isinstance(ctype, Float):
        return 0 if sizeof(ctype) <= 8 else REGISTERS + 1
    if isinstance(ctype, Int):
        return -(-ctype.size // 8)
    if not isinstance(ctype, Struct):
        return 1
    if _in_memory(ctype) or not sizeof(ctype):
        return REGISTERS + 1
    return len(_halves_with_integers(ctype, types))


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
