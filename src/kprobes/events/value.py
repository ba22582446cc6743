"""Numbers that mean something: they compute as the integers they are, and say by their type how to be shown.

Names of addresses and stacks are looked up later, by whoever knows the target's symbols.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Address(int):
    """A pointer: prints in hexadecimal."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"0x{int(self):x}"

    __repr__ = __str__


class SymbolAddress(Address):
    """An address that is to be shown by its symbol."""

    __slots__ = ()


class StackId(int):
    """The number of a kernel stack in the stack map; a negative one is an errno (the stack could not be kept)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({int(self)})"

    __str__ = __repr__


class UserStackId(StackId):
    """The number of a user stack in the stack map; a negative one is an errno."""

    __slots__ = ()


def text_of(raw: bytes) -> str:
    """Return the bytes before the first NUL as text; those that are no UTF-8 as surrogates (`surrogateescape`)."""
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _wide(signed: bool) -> Callable[[bytes], int]:
    return lambda raw: int.from_bytes(raw, "little", signed=signed)


CONVERTERS: dict[str, Callable[..., object]] = {
    "hex": Address,
    "bool": bool,
    "str": text_of,
    "symbol": SymbolAddress,
    "stack": StackId,
    "user_stack": UserStackId,
}
SIGNED_KINDS = frozenset({"int", "stack", "user_stack"})
_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}


def struct_code(kind: str, size: int) -> str:
    """Return how the `struct` module reads a field of *kind* and *size* bytes; odd sizes come as bytes."""
    code = _CODES.get(size)
    if kind == "str" or code is None:
        return f"{size}s"
    return code if kind in SIGNED_KINDS else code.upper()


def converter(kind: str, size: int) -> Callable[..., object] | None:
    """Return what makes a value of what `struct_code` read, None where that is the value already."""
    if kind != "str" and size not in _CODES:
        wide = _wide(kind in SIGNED_KINDS)
        outer = CONVERTERS.get(kind)
        return wide if outer is None else lambda raw: outer(wide(raw))
    return CONVERTERS.get(kind)
