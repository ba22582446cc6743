"""State that is no aggregate, besides HashMap: Array by index, Queue in order."""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.frozen import dataclass
from kprobes.model.layout import Field, MapLayout
from kprobes.model.mapspec import MapSpec, TypeSpec, fields_of, only_in_handlers

# The kernel makes no value of an array that is larger.
_LARGEST = 4 << 20


def _values(spec: TypeSpec, name: str) -> tuple[tuple[Field, ...], int]:
    value, size = fields_of(spec, "value")
    if not value:
        raise UsageError(f"the values of {name} are empty", hint="value=int, or a tuple of types")
    return value, size


@dataclass(frozen=True, slots=True, eq=False)
class Array(MapSpec):
    """*length* values by index, zeros at first: `Array("last", 64)`; in a handler `last[i] = v`, `last[i]`,
    `last[i] += 1`, `len(last)`.

    An index outside reads as zeros, writes nothing, and counts as a fault. `session[last]` is a list.
    """

    name: str
    length: int
    value: TypeSpec = int

    def __getitem__(self, index: int) -> int:
        only_in_handlers(f"{self.name}[...]")

    def __setitem__(self, index: int, value: object) -> None:
        only_in_handlers(f"{self.name}[...] =")

    def __len__(self) -> int:
        return self.length

    def layout(self, shards: int) -> MapLayout:
        """Return the layout."""
        value, size = _values(self.value, self.name)
        if not 1 <= self.length <= _LARGEST // size:
            raise UsageError(
                f"{self.name} has {self.length} values of {size} bytes, and 1 to {_LARGEST // size} are possible",
                hint="take a HashMap for more",
            )
        return MapLayout(self.name, "array", 4, size, self.length, value=value)


@dataclass(frozen=True, slots=True, eq=False)
class Queue(MapSpec):
    """Values in order: `Queue("late", value=(int, str))`; in a handler `late.push((tid(), comm()))`, `late.pop()`.

    At most *entries* values wait; what is pushed to a full queue is dropped and counted. An empty one gives zeros, or
    `pop(default)`. `session.take(late)` is a list of what waits, the oldest first, which is then no longer there.
    """

    name: str
    value: TypeSpec = int
    entries: int = 4096

    def push(self, value: object) -> None:
        """Append *value* (only in a handler)."""
        only_in_handlers(f"{self.name}.push")

    def pop(self, default: int = 0) -> int:
        """Take the oldest value, or *default* where there is none (only in a handler)."""
        only_in_handlers(f"{self.name}.pop")

    def layout(self, shards: int) -> MapLayout:
        """Return the layout."""
        value, size = _values(self.value, self.name)
        if self.entries < 1:
            raise UsageError(f"{self.name} has room for {self.entries} values", hint="entries= is 1 or more")
        return MapLayout(self.name, "queue", 0, size, self.entries, value=value)
