"""Strings, pointers and structs of handlers in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kprobes.errors import UsageError
from kprobes.model.ctype import Array, CType, Enum, Float, Int, Member, Struct, Types, Void, format_ctype, sizeof
from kprobes.model.ctype import Pointer as CPointer
from kprobes.testing.numbers import Shown, Truth, Word, fault, i64, u64

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.testing.world import World

_WORD = (1 << 64) - 1


class Text(str):
    """A string as a handler has it."""

    __slots__ = ()

    def string(self, size: int = 0) -> Text:
        """Return the string, cut to *size* - 1 bytes where a size is given."""
        return text(self.encode(errors="surrogateescape"), size) if size else self

    user_string = string


def text(content: bytes, size: int) -> Text:
    """Return the string that a buffer of *size* bytes holds of *content*."""
    return Text(content.split(b"\0", 1)[0][: size - 1].decode(errors="surrogateescape"))


class Absent(i64):
    """What a read that failed gives: zero, an empty string, a null pointer, whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        fault()
        return self

    def __getitem__(self, index: object) -> Any:
        fault()
        return self

    def string(self, size: int = 0) -> Text:  # noqa: ARG002
        """Return the empty string; the read is a fault."""
        fault()
        return Text("")

    user_string = string


class struct:  # noqa: N801 - as C calls it
    """A struct whose fields a test gives by name: `struct(f_pos=10, d_name=struct(name="passwd"))`.

    Integers are signed unless given as `u64(...)`, None is a null pointer, tuples and lists are arrays. `address` is
    where it lies, for handlers that look at it.
    """

    def __init__(self, address: int = 0xFFFF_8880_0000_0000, **fields: object) -> None:
        object.__setattr__(self, "_address", address)
        object.__setattr__(self, "_fields", fields)

    def __getattr__(self, name: str) -> Any:
        fields: dict[str, object] = object.__getattribute__(self, "_fields")
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in fields:
            raise UsageError(f"the frame's struct has no {name!r}", hint=f"it has {', '.join(fields) or 'no fields'}")
        return plain(fields[name])

    def __setattr__(self, name: str, value: object) -> None:
        raise UsageError("handlers can't write to memory")

    def __int__(self) -> int:
        return int(self._address)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, int | struct) and int(self) == int(other))

    def __hash__(self) -> int:
        return hash(int(self))


def plain(value: object) -> Any:
    """Return a value that a test gave as a handler has it."""
    if value is None:
        return Absent()
    if isinstance(value, bool | Word | Text):
        return value
    if isinstance(value, int):
        return i64(value) if value < 1 << 63 else u64(value)
    if isinstance(value, str):
        return Text(value)
    if isinstance(value, bytes):
        return text(value, len(value) + 1)
    if isinstance(value, tuple | list):
        return tuple(map(plain, value))
    return value


class Pointer:
    """The *address* of a *target*, read in the memory of *world*; see `compiler.front.terms.Pointer`."""

    __slots__ = ("_address", "_count", "_embedded", "_space", "_target", "_world", "is_text")

    def __init__(
        self, world: World, address: int, target: CType, space: str, *, count: int | None = None, embedded: bool = False
    ) -> None:
        self.is_text = False
        self._world = world
        self._address = address & _WORD
        self._target = target
        self._space = space
        self._count = count
        self._embedded = embedded

    # As a number.

    def __int__(self) -> int:
        return self._address

    def __index__(self) -> int:
        return self._address

    def __bool__(self) -> bool:
        return self._embedded or self._address != 0

    def __eq__(self, other: object) -> bool:
        if other is None:
            return not self
        return isinstance(other, int | Pointer) and self._address == _address(other)

    def __hash__(self) -> int:
        return hash(self._address)

    def __lt__(self, other: Any) -> bool:
        return self._address < _address(other)

    def __le__(self, other: Any) -> bool:
        return self._address <= _address(other)

    def __gt__(self, other: Any) -> bool:
        return self._address > _address(other)

    def __ge__(self, other: Any) -> bool:
        return self._address >= _address(other)

    def __add__(self, by: int) -> Pointer:
        return self._moved(int(by))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, Pointer):
            return i64(i64(self._address - other._address) // (sizeof(self._target) or 1))
        return self._moved(-int(other))

    def _moved(self, by: int) -> Pointer:
        size = 1 if isinstance(self._target, Void) else sizeof(self._target)
        return Pointer(self._world, self._address + by * size, self._target, self._space)

    def __repr__(self) -> str:
        return f"<{format_ctype(CPointer(self._target))} {self._address:#x}>"

    def __format__(self, spec: str) -> str:
        return format(self._address, spec) if spec else f"{self._address:#x}"

    # What it points to.

    def __getattr__(self, name: str) -> Any:
        member = self._member(name)
        if member is None:
            raise AttributeError(f"{format_ctype(self._target)} has no field {name!r}")
        if member.bit_size:
            return self._bit_field(member)
        return self._world.read(self._address + member.bit_offset // 8, member.type, self._space)

    def _member(self, name: str) -> Member | None:
        types: Types | None = self._world.types
        known = isinstance(self._target, Struct) and types is not None
        return types.member(self._target, name) if known and types and isinstance(self._target, Struct) else None

    def _bit_field(self, member: Member) -> Any:
        first = member.bit_offset // 8
        size = (member.bit_offset + member.bit_size + 7) // 8 - first
        content = self._world.memory(self._address + first, size)
        bits = int.from_bytes(content or b"", "little") >> member.bit_offset % 8 & (1 << member.bit_size) - 1
        if isinstance(member.type, Int) and member.type.kind == "bool":
            return Truth(bits != 0)
        signed = isinstance(member.type, Int | Enum) and member.type.signed
        value = bits - (1 << member.bit_size) if signed and bits >> member.bit_size - 1 else bits
        return i64(value) if signed or member.type.size < 8 else u64(value)  # type: ignore[union-attr]

    def __getitem__(self, index: int) -> Any:
        at = self._moved(int(index))
        if isinstance(self._target, Struct):
            return Pointer(self._world, at._address, self._target, self._space, embedded=True)
        return self._world.read(at._address, self._target, self._space)

    def __len__(self) -> int:
        if self._count is None:
            raise TypeError("the length of what a pointer points to is not known")
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def string(self, size: int = 0) -> Text:
        """Return the string there."""
        return self._world.string(self._address, size or self._text_size())

    def user_string(self, size: int = 0) -> Text:
        """Return the string there, in the memory of the process."""
        return self._world.string(self._address, size or self._text_size())

    def _text_size(self) -> int:
        return max(self._count, 2) if self._count else 64

    def cast(self, ctype: object) -> Any:
        """Return it as a pointer to *ctype*."""
        return self._world.cast(self, ctype)


def _address(other: Any) -> int:
    return other._address if isinstance(other, Pointer) else int(other) & _WORD


def is_null(value: object) -> bool:
    """Return what `value is None` means in a handler."""
    if isinstance(value, Pointer | Absent):
        return not value
    return value is None


def of_type(world: World, value: int, ctype: CType, space: str) -> Any:
    """Return *value*, 64 bits as a register holds them, as what C calls *ctype*.

    Raises:
        UsageError: handlers can't compute with such a type.
    """
    if isinstance(ctype, CPointer):
        made = Pointer(world, value, ctype.target, "user" if ctype.user else space)
        made.is_text = ctype.const and isinstance(ctype.target, Int) and ctype.target.kind == "char"
        return made
    if not isinstance(ctype, Int | Enum):
        raise UsageError(f"a {format_ctype(ctype)} is no integer or pointer")
    if isinstance(ctype, Int) and ctype.kind == "bool":
        return Truth(value & 0xFF != 0)
    bits = 8 * ctype.size
    value &= (1 << bits) - 1
    if ctype.signed and value >> bits - 1:
        value -= 1 << bits
    return u64(value) if bits == 64 and not ctype.signed else i64(value)


def is_scalar(ctype: CType) -> bool:
    """Tell whether *ctype* is read as one value."""
    return isinstance(ctype, CPointer | Int | Enum) and not isinstance(ctype, Float | Array)


__all__ = ["Absent", "Pointer", "Shown", "Text", "is_null", "of_type", "plain", "struct", "text"]
