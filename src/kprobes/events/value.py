"""Numbers that mean something: they compute as the integers they are, and say by their type how to be shown.

Names of addresses and stacks are looked up later, by whoever knows the target's symbols.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import ClassVar

    from kprobes.model.layout import Field


class Address(int):
    """A pointer: prints in hexadecimal."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"0x{int(self):x}"

    __repr__ = __str__


class SymbolAddress(Address):
    """An address that is to be shown by its symbol."""

    __slots__ = ()


class KnownAddress(SymbolAddress):
    """An address with the *name* of what lies there, `symbol` or `symbol+0x10`, by which it prints."""

    name: str

    def __new__(cls, address: int, name: str) -> KnownAddress:
        """Return *address* with its name."""
        made = super().__new__(cls, address)
        made.name = name
        return made

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__

    def __reduce__(self) -> tuple[Callable[..., KnownAddress], tuple[object, ...]]:
        return KnownAddress, (int(self), self.name)


class Character(int):
    """A character: prints as the kernel shows it, `'a'`."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"'{chr(self)}'"

    __repr__ = __str__


class IPv4(int):
    """An IPv4 address, as its four bytes lie in memory: prints as `192.0.2.1`."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Return the address as people write it."""
        return ".".join(map(str, (int(self) & 0xFFFFFFFF).to_bytes(4, "little")))

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


class CgroupId(int):
    """The id of a cgroup."""

    __slots__ = ()


class KnownCgroup(CgroupId):
    """The id of a cgroup with its path, its *name*. It prints as that, or as its container's id in short."""

    name: str

    def __new__(cls, number: int, name: str) -> KnownCgroup:
        """Return the id *number* with its path; an empty one is not known."""
        made = super().__new__(cls, number)
        made.name = name or int.__repr__(made)
        return made

    @property
    def container(self) -> str:
        """Return the id of the container that it belongs to, empty for none."""
        from kprobes.events.container import container_of

        return container_of(self.name)

    def __str__(self) -> str:
        return self.container[:_SHORT_ID] or self.name

    __repr__ = __str__

    def __reduce__(self) -> tuple[Callable[..., KnownCgroup], tuple[object, ...]]:
        return KnownCgroup, (int(self), self.name)


_SHORT_ID = 12  # of a container's 64 letters, as its own tools show it


class StackId(int):
    """The number of a kernel stack in the stack map; a negative one is an errno (the stack could not be kept)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({int(self)})"

    __str__ = __repr__


class UserStackId(StackId):
    """The number of a user stack in the stack map; a negative one is an errno."""

    __slots__ = ()


class Named(int):
    """A number with a name, such as a member of an enumeration: it computes as the number and prints as the name.

    A set of flags prints as `READ|WRITE`; bits without a name follow in hexadecimal.
    """

    names: ClassVar[Mapping[int, str]] = {}
    flags: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Return the name, or the number as text where it has none."""
        number = int(self)
        known = self.names.get(number)
        if known is not None or not self.flags:
            return known or int.__repr__(self)
        parts = []
        rest = number
        for value, name in self.names.items():
            if value and value & number == value and value & rest:
                parts.append(name)
                rest &= ~value
        return "|".join([*parts, hex(rest)] if rest or not parts else parts)

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec[-1:] in ("b", "c", "d", "n", "o", "x", "X") else format(self.name, spec)

    def __reduce__(self) -> tuple[Callable[..., Named], tuple[object, ...]]:
        return _named, (tuple(self.names.items()), self.flags, int(self))


def named_type(names: tuple[tuple[int, str], ...], *, flags: bool) -> type[Named]:
    """Return the class of numbers with these *names*. Of flags the widest come first: a name of several bits wins."""
    ordered = sorted(names, key=lambda pair: -pair[0].bit_count()) if flags else names
    return type("Named", (Named,), {"names": dict(ordered), "flags": flags})


def _named(names: tuple[tuple[int, str], ...], flags: bool, number: int) -> Named:
    return named_type(names, flags=flags)(number)


def with_names(fields: dict[str, object], known: Callable[[object], object]) -> dict[str, object]:
    """Return *fields* for JSON: behind each number that has a name, as `NAME_name`, that name.

    *known* gives addresses that are shown by their symbols their names (see `KnownAddress`), and all else back.
    """
    if not any(isinstance(value, Named | SymbolAddress | IPv4 | CgroupId) for value in fields.values()):
        return fields
    found: dict[str, object] = {}
    for key, plain in fields.items():
        found[key] = value = known(plain)
        if (
            isinstance(value, Named | KnownAddress | KnownCgroup | IPv4)
            and f"{key}_name" not in fields
            and value.name != int.__repr__(value)
        ):
            found[f"{key}_name"] = value.name
        if isinstance(value, KnownCgroup) and value.container and f"{key}_container" not in fields:
            found[f"{key}_container"] = value.container
    return found


def text_of(raw: bytes) -> str:
    """Return the bytes before the first NUL as text; those that are no UTF-8 as surrogates (`surrogateescape`)."""
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _wide(signed: bool) -> Callable[[bytes], int]:
    return lambda raw: int.from_bytes(raw, "little", signed=signed)


CONVERTERS: dict[str, Callable[..., object]] = {
    "hex": Address,
    "bool": bool,
    "str": text_of,
    "char": Character,
    "symbol": SymbolAddress,
    "symstr": SymbolAddress,
    "ipv4": IPv4,
    "cgroup": CgroupId,
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


def converter_of(field: Field) -> Callable[..., object] | None:
    """Return what makes a value of what `struct_code` reads of *field*, None where that is the value already."""
    return named_type(field.names, flags=field.flags) if field.names else converter(field.kind, field.size)
