"""What a handler can reach, as ports for the interpreter, and a world made of plain data for dry runs and tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Frame:
    """One hit: what it brings along.

    *registers* by their pt_regs names; *arguments* by the C ABI; *result* is the return value (exit part); *record* the
    bytes of a tracepoint's record; *function* the probed address. *call* tells calls in flight apart.
    """

    registers: Mapping[str, int] = field(default_factory=dict)
    arguments: tuple[int, ...] = ()
    result: int = 0
    record: bytes = b""
    function: int = 0
    call: int = 0


class World(Protocol):
    """What lies outside a handler's own state."""

    def read_memory(self, space: str, address: int, size: int) -> bytes | None:
        """Return *size* bytes at *address* in *space* (`kernel` or `user`), or None where one can't be read."""

    def number(self, name: str) -> int:
        """Return the builtin *name*."""

    def text(self, name: str) -> bytes:
        """Return the text builtin *name*, without NUL."""

    def send(self, record: bytes) -> bool:
        """Take an event record; False where there is no room."""

    def write(self, what: str, name: str, value: int) -> None:
        """Change the probed program (see `WriteContext`)."""


class DryWorld:
    """A world of plain data: *memory* maps (space, address) to bytes, *numbers* and *texts* are the builtins.

    *records* keeps what was emitted, at most *room* of them; *written* what the handler did to the probed program.
    """

    def __init__(
        self,
        memory: Mapping[tuple[str, int], bytes] | None = None,
        numbers: Mapping[str, int] | None = None,
        texts: Mapping[str, bytes] | None = None,
        room: int = 1 << 20,
    ) -> None:
        self.memory = dict(memory or {})
        self.numbers = dict(numbers or {})
        self.texts = dict(texts or {"comm": b"python"})
        self.room = room
        self.records: list[bytes] = []
        self.written: list[tuple[str, str, int]] = []

    def read_memory(self, space: str, address: int, size: int) -> bytes | None:
        """Return the bytes if they lie in one region."""
        for (where, start), content in self.memory.items():
            offset = address - start
            if where == space and 0 <= offset <= len(content) - size:
                return content[offset : offset + size]
        return None

    def number(self, name: str) -> int:
        """Return a builtin, 0 where none was given."""
        return self.numbers.get(name, 0)

    def text(self, name: str) -> bytes:
        """Return a text, empty where none was given."""
        return self.texts.get(name, b"")

    def send(self, record: bytes) -> bool:
        """Keep a record while there is room."""
        if len(self.records) >= self.room:
            return False
        self.records.append(record)
        return True

    def write(self, what: str, name: str, value: int) -> None:
        """Note what was changed."""
        self.written.append((what, name, value))
