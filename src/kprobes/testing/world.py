"""What a handler in plain Python can reach: the frame, its memory, the maps, and what it sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kprobes.errors import UsageError
from kprobes.model.ctype import Array, CType, Int, Struct, Void, sizeof
from kprobes.model.ctype import Pointer as CPointer
from kprobes.testing.numbers import Truth
from kprobes.testing.values import Pointer, Text, is_scalar, of_type, plain, text

if TYPE_CHECKING:
    from kprobes.model.ctype import Types
    from kprobes.testing.frame import Frame

_LARGEST_TEXT = 256


class Sent:
    """An event that a handler sent: its *fields* by name, also as attributes and items.

    `name` is the handler's and `text` the line of a `log`, unless it has fields of these names, as with a session's
    events.
    """

    def __init__(self, name: str, fields: dict[str, Any], text: str) -> None:
        self.fields = fields
        self._own = {"name": name, "text": text}

    def __getattr__(self, name: str) -> Any:
        for values in (self.fields, self._own) if name not in ("fields", "_own") else ():
            if name in values:
                return values[name]
        raise AttributeError(f"the event has no field {name!r}")

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def __repr__(self) -> str:
        return f"{self._own['name']}({', '.join(f'{name}={value!r}' for name, value in self.fields.items())})"

    @property
    def line(self) -> str:
        """The line of a `log`, empty for another event."""
        return str(self._own["text"])


class World:
    """The surroundings of one handler. *frame* and *exit_part* are those of the hit that runs."""

    def __init__(self, name: str, *, user: bool) -> None:
        self.name = name
        self.user = user
        self.frame: Frame
        self.exit_part = False
        self.fault = False
        self.faults = 0
        self.unknown_reads = 0
        self.events: list[Sent] = []
        self.kept: dict[str, Any] = {}  # of the call that runs: ri.data
        self.written: list[tuple[str, str, int]] = []

    @property
    def types(self) -> Types | None:
        """The C types of the target, where the frame knows them."""
        return self.frame.types

    @property
    def space(self) -> str:
        """Where a bare address points."""
        return "user" if self.user else "any"

    # Memory.

    def memory(self, address: int, size: int) -> bytes | None:
        """Return *size* bytes at *address*, or None, which is a fault."""
        found = find(self.frame.memory, address, size)
        if found is None:
            self.fault = True
        return found

    def read(self, address: int, ctype: CType, space: str) -> Any:
        """Return the *ctype* at *address*; of structs and arrays their place."""
        if isinstance(ctype, Struct):
            return Pointer(self, address, ctype, space, embedded=True)
        if isinstance(ctype, Array):
            if isinstance(ctype.element, Int) and ctype.element.kind == "char":
                return CharArray(self, address, ctype, space)
            return Pointer(self, address, ctype.element, space, count=ctype.count, embedded=True)
        if not is_scalar(ctype):
            raise UsageError("this type can't be read")
        content = self.memory(address, sizeof(ctype))
        return of_type(self, int.from_bytes(content or b"", "little"), ctype, space)

    def string(self, address: int, size: int) -> Text:
        """Return the NUL-terminated string at *address*, at most *size* - 1 bytes."""
        found = bytearray()
        for at in range(address, address + size - 1):
            byte = find(self.frame.memory, at, 1)
            if byte is None:
                self.fault = True
                return Text("")
            if byte == b"\0":
                break
            found += byte
        return text(bytes(found), size)

    def cast(self, value: Any, ctype: object) -> Any:
        """Return *value* as the C type called *ctype*.

        Raises:
            UsageError: the frame's types don't have it.
        """
        if not isinstance(value, int | Pointer):
            return value  # a struct of the test's own is what it is
        found, user = self.type_named(str(ctype))
        space = "user" if user else value._space if isinstance(value, Pointer) else self.space
        if isinstance(found, Struct):
            found = CPointer(found)
        if isinstance(found, Int) and found.kind == "bool":
            return Truth(bool(value))
        return of_type(self, int(value), found, space)

    def type_named(self, name: str) -> tuple[CType, bool]:
        """Return the C type called *name*, and whether it says `__user`."""
        words = name.replace("*", " * ").split()
        spelling = " ".join(word for word in words if word not in ("__user", "const", "volatile"))
        found = self.types.typename(spelling) if self.types else _own_type(spelling)
        if found is None:
            raise UsageError(f"no C type {name!r} is known here", hint="give the frame types=, or a struct(...) itself")
        return found, "__user" in words

    # The hit.

    def argument(self, number: int) -> Any:
        """Return argument *number*, from 0."""
        values = self.frame.arguments
        if not 0 <= number < len(values):
            raise UsageError(f"the frame has no argument {number + 1}", hint="give it more arguments")
        return self._typed(values[number], number)

    def argument_named(self, name: str) -> Any:
        """Return the argument called *name*."""
        names, prototype = self.frame.names, self.frame.prototype
        if name not in names:
            hint = f"it has {', '.join(names)}" if names else "give its arguments as a dict"
            raise UsageError(f"the frame has no argument {name!r}", hint=hint)
        number = names.index(name)
        declared = [one.name for one in prototype.parameters] if prototype else []
        return self._typed(self.frame.arguments[number], declared.index(name) if name in declared else -1)

    def _typed(self, value: object, number: int) -> Any:
        prototype = self.frame.prototype
        if prototype is None or not isinstance(value, int) or not 0 <= number < len(prototype.parameters):
            return plain(value)
        return of_type(self, value, prototype.parameters[number].type, "user" if self.user else "any")

    def result(self) -> Any:
        """Return what the probed function returned."""
        prototype, value = self.frame.prototype, self.frame.result
        if prototype is None or not isinstance(value, int) or isinstance(prototype.returns, Void):
            return plain(value)
        return of_type(self, value, prototype.returns, "user" if self.user else "kernel")

    def word(self, name: str) -> Any:
        """Return the builtin *name* of the frame."""
        return self.frame.word(name, exit_part=self.exit_part)

    def register(self, name: str) -> int:
        """Return a register by its kernel name."""
        registers = self.frame.after if self.exit_part else self.frame.registers
        return registers.get(name, 0)


class CharArray(Pointer):
    """An array of char: a string where a string is wanted, elements else."""

    __slots__ = ()

    def __init__(self, world: World, address: int, ctype: Array, space: str) -> None:
        super().__init__(world, address, ctype.element, space, count=ctype.count, embedded=True)

    def __str__(self) -> str:
        return self._text()

    def __repr__(self) -> str:
        return repr(str(self._text()))

    def _text(self) -> Text:
        size = min(self._count or 2, _LARGEST_TEXT)
        content = self._world.memory(self._address, size)
        return text(content or b"", size)

    def __eq__(self, other: object) -> bool:
        return self._text() == other if isinstance(other, str) else super().__eq__(other)

    __hash__ = Pointer.__hash__

    def __format__(self, spec: str) -> str:
        return format(self._text(), spec)

    def startswith(self, prefix: str) -> bool:
        """Tell whether the string begins with *prefix*."""
        return self._text().startswith(prefix)


def find(memory: dict[int, bytes], address: int, size: int) -> bytes | None:
    """Return *size* bytes at *address* if they lie in one region of *memory*."""
    for start, content in memory.items():
        offset = address - start
        if 0 <= offset <= len(content) - size:
            return content[offset : offset + size]
    return None


def _own_type(name: str) -> CType | None:
    from kprobes.model.cnames import builtin_type

    if name.endswith("*"):
        target = _own_type(name[:-1].strip())
        return CPointer(target) if target is not None else None
    return builtin_type(name)


def as_value(value: Any) -> Any:
    """Return *value* as an event or a map holds it: plain ints, bools and strings."""
    if isinstance(value, bool | Truth):
        return bool(value)
    if isinstance(value, CharArray | str):
        return str(value)
    return 0 if value is None else int(value)
