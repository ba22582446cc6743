"""C types as data, and the port through which the compiler asks for them.

Types form cyclic graphs (`struct task_struct` points at itself), so a `Struct` here holds no members: it is a name, a
size and a key of its provider, and `Types.member` finds one member at a time. Typedefs, `const`, `volatile` and
`restrict` are resolved away.
"""

from __future__ import annotations

from kprobes.frozen import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol
else:
    Protocol = object  # `typing` would cost every start 5 ms


@dataclass(frozen=True, slots=True)
class Void:
    """`void`: only behind a pointer or as a return type."""


@dataclass(frozen=True, slots=True)
class Int:
    """An integer, `bool` or `char`: *size* in bytes (1, 2, 4, 8 or 16); *kind* is `int`, `bool` or `char`."""

    name: str
    size: int
    signed: bool
    kind: str = "int"


@dataclass(frozen=True, slots=True)
class Float:
    """A floating-point number of *size* bytes; it can be named but not computed with."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Enum:
    """An enumeration stored in *size* bytes; its names come from `Types.enumerators`. With *flags* a value is a set
    of them."""

    name: str
    size: int
    signed: bool
    key: int
    flags: bool = False


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct or union of *size* bytes, 0 where it is only declared; *key* belongs to the provider."""

    name: str
    size: int
    is_union: bool
    key: int


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer of *size* bytes. *user* is true where the type says `__user`, *const* where it says that nothing is
    written through it: a `char *` without is as likely a buffer to fill as a string. *text* says that a handler takes
    it for the string that it points to (`cstr`). Pointers that differ in *const*, *text* or *size* are equal."""

    target: CType
    user: bool = False
    const: bool = field(default=False, compare=False)
    text: bool = field(default=False, compare=False)
    size: int = field(default=8, compare=False)


@dataclass(frozen=True, slots=True)
class Array:
    """*count* elements; 0 for a flexible array."""

    element: CType
    count: int


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a prototype; *name* is empty where the types don't tell it."""

    name: str
    type: CType


@dataclass(frozen=True, slots=True)
class Function:
    """A prototype; *key* belongs to the provider (the BTF id of the function, 0 where there is none)."""

    name: str
    parameters: tuple[Parameter, ...]
    returns: CType
    variadic: bool = False
    key: int = 0
    module: str = ""


CType = Void | Int | Float | Enum | Struct | Pointer | Array | Function


@dataclass(frozen=True, slots=True)
class Member:
    """A struct member. *bit_offset* counts from the start of the outermost struct asked; *bit_size* is 0 unless a
    bit-field."""

    name: str
    type: CType
    bit_offset: int
    bit_size: int = 0


class Types(Protocol):
    """Where types come from: BTF for the kernel, DWARF for a process."""

    def function(self, name: str) -> Function | None:
        """Return the prototype of the function *name*, or None."""

    def struct(self, name: str) -> Struct | None:
        """Return `struct name` or `union name` (a definition where there is one), or None."""

    def member(self, struct: Struct, name: str) -> Member | None:
        """Return the member *name*, also one inside an anonymous struct or union of *struct*."""

    def member_names(self, struct: Struct) -> Sequence[str]:
        """Return the names `member` finds, for messages."""

    def enumerator(self, name: str) -> int | None:
        """Return the value of the enum constant *name*, or None."""

    def enumerators(self, enum: Enum) -> Mapping[int, str]:
        """Return the constants of *enum* by value; of several names the first."""

    def variable(self, name: str) -> CType | None:
        """Return the type of the global variable *name*, or None."""

    def typename(self, name: str) -> CType | None:
        """Return the type a cast names: `u32`, `size_t`, `struct file`, `struct file *`, `char *`, or None."""


def sizeof(ctype: CType) -> int:
    """Return the size of *ctype* in bytes; 0 for `void`, functions and flexible arrays."""
    if isinstance(ctype, Array):
        return ctype.count * sizeof(ctype.element)
    if isinstance(ctype, Void | Function):
        return 0
    return ctype.size


def format_ctype(ctype: CType) -> str:
    """Return *ctype* as C writes it, for messages and `kprobes info`."""
    if isinstance(ctype, Void):
        return "void"
    if isinstance(ctype, Pointer):
        inner = format_ctype(ctype.target)
        return f"{inner}*" if inner.endswith("*") else f"{inner} *"
    if isinstance(ctype, Array):
        return f"{format_ctype(ctype.element)}[{ctype.count}]"
    if isinstance(ctype, Struct):
        return f"{'union' if ctype.is_union else 'struct'} {ctype.name or '(anonymous)'}"
    if isinstance(ctype, Enum):
        return f"enum {ctype.name or '(anonymous)'}"
    if isinstance(ctype, Function):
        inside = ", ".join(format_ctype(p.type) for p in ctype.parameters)
        return f"{format_ctype(ctype.returns)} (*)({inside})"
    return ctype.name
