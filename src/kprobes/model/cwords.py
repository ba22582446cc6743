"""The C types that a handler or a struct of the user's own names in annotations: `path: cstr`, `flags: u32`.

A word with a number behind it is an array (`char[16]`); `ptr` with a type behind it points there (`ptr[Header]`).
"""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.frozen import dataclass
from kprobes.model.cnames import CHAR, builtin_type
from kprobes.model.ctype import Int, Pointer, Void

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.ctype import CType

# A struct of the user's own is a value on paper: arrays in it stay small enough to be read and sent.
LARGEST_ARRAY = 65536


@dataclass(frozen=True, slots=True)
class CWord:
    """A C type by its own name: an integer, `ptr` or `cstr`."""

    name: str
    type: CType

    def __getitem__(self, item: object) -> ArrayOf | PointerTo:
        if isinstance(item, int):
            return array_of(self, item)
        if isinstance(self.type, Pointer) and isinstance(self.type.target, Void):
            return PointerTo(item)
        raise UsageError(f"{self.name}[{item!r}] is no type", hint=f"{self.name}[16] is an array of 16")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class ArrayOf:
    """*count* elements, each of the type that *element* names."""

    element: object
    count: int

    def __getitem__(self, count: int) -> ArrayOf:
        inner = self.element[count] if isinstance(self.element, ArrayOf) else array_of(self.element, count)
        return array_of(inner, self.count)  # as in C, u8[2][3] is two arrays of three


@dataclass(frozen=True, slots=True)
class PointerTo:
    """A pointer to what *target* names: a word, a struct class, or text with a C type of the probed program."""

    target: object


@dataclass(frozen=True, slots=True)
class Bits:
    """A bit-field of *width* bits in an integer of the type that *word* names."""

    word: CWord
    width: int


def array_of(element: object, count: int) -> ArrayOf:
    """Return the type of *count* times *element*.

    Raises:
        UsageError: there can't be so many.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 0 < count <= LARGEST_ARRAY:
        raise UsageError(f"an array of {count!r} elements", hint=f"arrays hold 1 to {LARGEST_ARRAY}")
    return ArrayOf(element, count)


def bits(word: CWord, width: int) -> Bits:
    """Return the type of a bit-field: `kind: bits(u32, 3)` is C's `u32 kind : 3`.

    Raises:
        UsageError: *word* is no integer, or has fewer bits.
    """
    if not isinstance(word, CWord) or not isinstance(word.type, Int):
        raise UsageError("a bit-field is part of an integer", hint="write bits(u32, 3)")
    if not isinstance(width, int) or not 0 < width <= 8 * word.type.size:
        raise UsageError(f"{word.name} has {8 * word.type.size} bits, not {width!r}")
    return Bits(word, width)


def _word(name: str, spelling: str = "") -> CWord:
    found = builtin_type(spelling or name)
    assert found is not None, name
    return CWord(name, found)


u8, u16, u32, u64 = (_word(name) for name in ("u8", "u16", "u32", "u64"))
s8, s16, s32, s64 = (_word(name) for name in ("s8", "s16", "s32", "s64"))
i8, i16, i32, i64 = (_word(f"i{bits_}", f"s{bits_}") for bits_ in (8, 16, 32, 64))
char = CWord("char", CHAR)
size_t, ssize_t = _word("size_t"), _word("ssize_t")
ptr = CWord("ptr", Pointer(Void()))
cstr = CWord("cstr", Pointer(CHAR, const=True, text=True))

WORDS = {
    word.name: word
    for word in (u8, u16, u32, u64, i8, i16, i32, i64, s8, s16, s32, s64, char, size_t, ssize_t, ptr, cstr)
}
