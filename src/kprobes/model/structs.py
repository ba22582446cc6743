"""Structs of the user's own, laid out as C does, and what an annotation names.

    @struct
    class Header:
        magic: u32
        length: u16
        name: char[16]
        next: "Header *"

An instance is a value in Python (`Header(magic=1, ...)`); in a handler the class is a type: `cast(p, Header).length`.
A member's type is a word of `cwords`, an array or pointer of them, `bool`, another such class, an `enum.IntEnum` or
`IntFlag`, `bits(u32, 3)`, or text: a C name, which for pointers may be one that only the probed program knows.
"""

from __future__ import annotations

import sys

from kprobes.errors import UsageError
from kprobes.frozen import dataclass
from kprobes.model.cnames import builtin_type
from kprobes.model.ctype import Int, sizeof
from kprobes.model.cwords import WORDS, ArrayOf, Bits, CWord, PointerTo, array_of
from kprobes.model.layout import Field, align_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from enum import Enum
    from typing import TypeGuard, TypeVar

    T = TypeVar("T")

SHAPE = "__kprobes_struct__"
BOOL = CWord("bool", Int("bool", 1, False, "bool"))
# Members of all nested structs together, arrays counted by element, that a whole struct may be sent or kept as.
MOST_FIELDS = 128


@dataclass(frozen=True, slots=True)
class StructMember:
    """One member, of what its annotation names. Bits count from the start; *bit_size* is 0 unless a bit-field."""

    name: str
    type: object
    bit_offset: int
    bit_size: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The layout of a struct class: *size* and *align* in bytes."""

    name: str
    members: tuple[StructMember, ...]
    size: int
    align: int
    is_union: bool = False

    def fields(self, prefix: str = "") -> tuple[Field, ...]:
        """Return the members as fields of a record or map, those of nested structs by dotted names, arrays by element.

        Raises:
            UsageError: bit-fields and unions have no fields of their own; there are too many.
        """
        found = tuple(_fields(self, prefix, 0))
        if len(found) > MOST_FIELDS:
            raise UsageError(f"{self.name} has {len(found)} fields", hint=f"at most {MOST_FIELDS} can be sent or kept")
        return found


def shape_of(thing: object) -> Shape | None:
    """Return the layout of a struct class, None for anything else."""
    found = thing.__dict__.get(SHAPE) if isinstance(thing, type) else None
    return found if isinstance(found, Shape) else None


def struct(cls: type[T] | None = None, /, *, packed: bool = False) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class of annotations a C struct: `@struct`, or `@struct(packed=True)` without padding.

    Raises:
        UsageError: a member's type has no layout in C.
    """
    return _decorate(cls, packed=packed, is_union=False, names=_names_around())


def union(cls: type[T] | None = None, /, *, packed: bool = False) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class of annotations a C union, whose members all begin at its start."""
    return _decorate(cls, packed=packed, is_union=True, names=_names_around())


def _names_around() -> Mapping[str, object]:
    frame = sys._getframe(2)
    return {**frame.f_globals, **frame.f_locals}


def _decorate(
    cls: type[T] | None, *, packed: bool, is_union: bool, names: Mapping[str, object]
) -> type[T] | Callable[[type[T]], type[T]]:
    def make(owner: type[T]) -> type[T]:
        setattr(owner, SHAPE, None)  # pointers to itself know it by that
        shape = _lay_out(owner, {**names, owner.__name__: owner}, packed=packed, is_union=is_union)
        made = owner if is_union else dataclass(frozen=True, slots=True)(owner)
        for one in {owner, made}:
            setattr(one, SHAPE, shape)
        return made

    return make if cls is None else make(cls)


# From annotations to types.


def type_named(annotation: object, names: Mapping[str, object]) -> object:
    """Return the type that *annotation* names where *names* are visible: a word, an array, a pointer, bits, a class.

    Text that is neither a Python expression for one nor made of known words comes back as a pointer to it, or as it
    is: only the types of a probed program can tell.
    """
    if isinstance(annotation, str):
        try:
            found = eval(annotation, {"__builtins__": __builtins__}, dict(names))  # noqa: S307 - as typing.get_type_hints
        except Exception:  # noqa: BLE001 - whatever it is, it is no Python
            found = annotation
        return spelled(annotation, names) if found == annotation else type_named(found, names)
    if annotation is bool:
        return BOOL
    return annotation


def spelled(text: str, names: Mapping[str, object]) -> object:
    """Return the type that C's spelling *text* names."""
    head, counts = _without_counts(text)
    plain = head.rstrip("* \t")
    stars = head.count("*", len(plain))
    plain = " ".join(plain.split())
    base = names.get(plain.removeprefix("struct ").removeprefix("union "))
    found: object = base if _is_struct(base) or is_enum(base) else WORDS.get(plain)
    if found is None and builtin_type(plain) is not None and plain != "void":
        ctype = builtin_type(plain)
        found = CWord(plain, ctype) if ctype is not None else None
    for depth in range(stars):
        found = WORDS["ptr"] if plain == "void" and not depth else PointerTo(found or plain)
    if found is None:
        return text
    for count in counts:
        found = array_of(found, count)
    return found


def _without_counts(text: str) -> tuple[str, list[int]]:
    """Return `u16` and the numbers 3, 2 of `u16[2][3]`: the innermost array's first."""
    counts: list[int] = []
    text = text.strip()
    while text.endswith("]"):
        inner, _, count = text[:-1].rpartition("[")
        if not count.strip().isdecimal():
            break
        text = inner.rstrip()
        counts.append(int(count))
    return text, counts


def is_enum(thing: object) -> TypeGuard[type[Enum]]:
    """Tell whether *thing* is a class of Python's integer enums."""
    enum = sys.modules.get("enum")
    return isinstance(thing, type) and enum is not None and issubclass(thing, enum.IntEnum | enum.IntFlag)


def _is_struct(thing: object) -> bool:
    return isinstance(thing, type) and SHAPE in thing.__dict__


def enum_word(thing: type[Enum]) -> Int:
    """Return the integer that C keeps an enum class of Python in."""
    values = [int(member.value) for member in thing]
    low, high = min(values, default=0), max(values, default=0)
    wide = low < -(1 << 31) or high >= 1 << (31 if low < 0 else 32)
    return Int(thing.__name__, 8 if wide else 4, low < 0)


# Layout.


def _lay_out(owner: type, names: Mapping[str, object], *, packed: bool, is_union: bool) -> Shape:
    annotations = owner.__dict__.get("__annotations__", {})  # noqa: RUF063 - `inspect` costs every start 10 ms
    if not annotations:
        raise UsageError(f"{owner.__name__} has no members", hint="annotate them: length: u16")
    members = []
    end, align = 0, 1  # the end is in bits: bit-fields share bytes
    for name, annotation in annotations.items():
        kind = type_named(annotation, names)
        size, own = _measured(owner, name, kind)
        own = 1 if packed else own
        width = kind.width if isinstance(kind, Bits) else 0
        start = 0 if is_union else _start(end, size, own, width, packed=packed)
        members.append(StructMember(name, kind, start, width))
        end = max(end, start + (width or 8 * size))
        align = max(align, own)
    return Shape(owner.__name__, tuple(members), align_up(align_up(end, 8) // 8, align), align, is_union)


def _start(end: int, size: int, align: int, width: int, *, packed: bool) -> int:
    """Return the bit at which a member begins that follows bit *end*."""
    if not width:
        return align_up(end, 8 * align)
    if packed or end // (8 * size) == (end + width - 1) // (8 * size):
        return end
    return align_up(end, 8 * align)  # it doesn't fit into what is left of its unit


def _measured(owner: type, name: str, kind: object) -> tuple[int, int]:
    """Return size and alignment in bytes."""
    shape = shape_of(kind)
    if shape is not None:
        return shape.size, shape.align
    if isinstance(kind, CWord):
        return sizeof(kind.type), sizeof(kind.type)
    if isinstance(kind, Bits):
        return _measured(owner, name, kind.word)
    if isinstance(kind, PointerTo):
        return 8, 8
    if isinstance(kind, ArrayOf):
        size, align = _measured(owner, name, kind.element)
        return size * kind.count, align
    if is_enum(kind):
        return enum_word(kind).size, enum_word(kind).size
    raise _no_layout(owner, name, kind)


def _no_layout(owner: type, name: str, kind: object) -> UsageError:
    shown = kind.__name__ if isinstance(kind, type) else repr(kind)
    hint = 'use u32, i64, char[16], ptr, cstr, another @struct class, or a pointer in quotes: "struct file *"'
    if kind is int:
        hint = "C's integers have a width: use u32, i64, ..."
    elif kind is str:
        hint = "a string in the struct is char[16], a pointer to one is cstr"
    elif kind is owner:
        hint = f'a struct can\'t hold itself; a pointer to it is "{owner.__name__} *"'
    return UsageError(f"{owner.__name__}.{name}: {shown} is no type with a size in C", hint=hint)


# Fields.


def _fields(shape: Shape, prefix: str, start: int) -> Iterator[Field]:
    if shape.is_union:
        raise UsageError(f"the union {shape.name} has no fields of its own", hint="name the member that is meant")
    for member in shape.members:
        if member.bit_size:
            raise UsageError(f"{shape.name}.{member.name} is a bit-field", hint="name bit-fields one by one")
        yield from _field(member.type, f"{prefix}{member.name}", start + member.bit_offset // 8)


def _field(kind: object, name: str, offset: int) -> Iterator[Field]:
    inner = shape_of(kind)
    if inner is not None:
        yield from _fields(inner, f"{name}.", offset)
    elif isinstance(kind, ArrayOf) and kind.element == WORDS["char"]:
        yield Field(name, "str", offset, kind.count)
    elif isinstance(kind, ArrayOf):
        size = _measured(ArrayOf, name, kind.element)[0]
        for index in range(min(kind.count, MOST_FIELDS + 1)):
            yield from _field(kind.element, f"{name}[{index}]", offset + index * size)
    elif isinstance(kind, CWord) and isinstance(kind.type, Int):
        yield Field(name, _kind_of(kind.type), offset, kind.type.size)
    elif is_enum(kind):
        word = enum_word(kind)
        yield Field(name, _kind_of(word), offset, word.size, *names_of(kind))
    else:
        yield Field(name, "hex", offset, 8)


def _kind_of(word: Int) -> str:
    return "bool" if word.kind == "bool" else "int" if word.signed else "uint"


def names_of(kind: type[Enum]) -> tuple[tuple[tuple[int, str], ...], bool]:
    """Return the names of an enum class by value, the first of several, and whether its values are sets of flags."""
    names: dict[int, str] = {}
    for name, member in kind.__members__.items():
        names.setdefault(int(member.value), name)
    return tuple(sorted(names.items())), any(base.__name__ == "IntFlag" for base in kind.__mro__)


def fields_of_type(kind: object, name: str) -> tuple[Field, ...]:
    """Return the fields that a map keeps of a key or value (or part of one) of the type *kind*, called *name*.

    Raises:
        UsageError: none can be kept.
    """
    shape = shape_of(kind)
    if shape is not None:
        return shape.fields(f"{name}.")
    if is_enum(kind) or isinstance(kind, CWord | ArrayOf | PointerTo):
        return tuple(_field(kind, name, 0))
    return ()


# For the cache of plans.


def fingerprint(kind: object, seen: frozenset[type] = frozenset()) -> str:
    """Return a text that tells all of the type *kind* that a compiled handler can depend on."""
    shape = shape_of(kind)
    if shape is not None and isinstance(kind, type):
        if kind in seen:
            return shape.name
        inside = (
            f"{one.name}@{one.bit_offset}:{one.bit_size}={fingerprint(one.type, seen | {kind})}"
            for one in shape.members
        )
        return f"{shape.name}[{shape.size},{shape.is_union}]({' '.join(inside)})"
    if isinstance(kind, ArrayOf):
        return f"{fingerprint(kind.element, seen)}[{kind.count}]"
    if isinstance(kind, PointerTo):
        return f"{fingerprint(kind.target, seen)}*"
    if is_enum(kind):
        return f"{kind.__mro__[1].__name__} {kind.__name__} {dict(kind.__members__)!r}"
    return repr(kind)
