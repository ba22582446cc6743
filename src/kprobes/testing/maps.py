"""Maps of handlers in plain Python: the interpreter's storage, with the methods that handlers call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kprobes.compiler.ir.storage import Elements, Storage, Waiting, bucket_of
from kprobes.errors import UsageError
from kprobes.model.aggregates import Avg, Max, Min, Stacks, Sum
from kprobes.model.containers import Array, Queue
from kprobes.model.mapspec import Count, HashMap, Histogram
from kprobes.testing.numbers import Truth, fault, i64, u64
from kprobes.testing.values import Text, text
from kprobes.testing.world import as_value

if TYPE_CHECKING:
    from kprobes.model.layout import Field, MapLayout
    from kprobes.model.mapspec import MapSpec
    from kprobes.testing.world import World

_WORD = (1 << 64) - 1


class Simulated:
    """A map of the user's while handlers run in *world*; `pairs` is what an engine would read."""

    def __init__(self, spec: MapSpec, world: World | None = None) -> None:
        self.spec = spec
        self.world = world
        self.layout: MapLayout = spec.layout(1)
        self.storage = Storage(self.layout)

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Return the (key, value) pairs, as an engine's `read_map` does."""
        return self.storage.read()

    def key(self, key: Any) -> bytes:
        """Return *key* as the map keeps it."""
        return _packed(self.layout.key, key, self.layout.key_size) if self.layout.key else b""


class SimulatedCount(Simulated):
    """A Count."""

    def add(self, amount: int = 1, *, by: object = None) -> None:
        """Add *amount* under the key *by*."""
        if not self.storage.add(self.key(by), 0, int(amount) & _WORD):
            fault()


class SimulatedSum(Simulated):
    """A Sum."""

    def add(self, value: int, *, by: object = None) -> None:
        """Add *value* under the key *by*."""
        if not self.storage.add(self.key(by), 0, int(value) & _WORD):
            fault()


class SimulatedFold(Simulated):
    """A Min, Max or Avg."""

    def add(self, value: int, *, by: object = None) -> None:
        """Take *value* in under the key *by*."""
        if not self.storage.fold(self.key(by), int(value)):
            fault()


class SimulatedStacks(Simulated):
    """A Stacks."""

    def add(self, amount: int = 1, *, by: object = None) -> None:
        """Add *amount* under the stacks of the frame and the key *by*."""
        assert isinstance(self.spec, Stacks)
        stacks = tuple(int(self.world.word(word)) if self.world else 0 for word in self.spec.kinds)
        rest = () if self.spec.by is None else by if isinstance(by, tuple) else (by,)
        if not self.storage.add(self.key((*stacks, *rest)), 0, int(amount) & _WORD):
            fault()


class SimulatedArray(Simulated):
    """An Array."""

    def __init__(self, spec: MapSpec, world: World | None = None) -> None:
        super().__init__(spec, world)
        self.elements = Elements(self.layout)

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Return the elements, as an engine does."""
        return self.elements.read()

    def __len__(self) -> int:
        return self.layout.max_entries

    def __getitem__(self, index: int) -> Any:
        found = self.elements.find(int(index))
        if found is None:
            fault()
        return _unpacked(self.layout.value, found or bytes(self.layout.value_size))

    def __setitem__(self, index: int, value: object) -> None:
        if not self.elements.put(int(index), _packed(self.layout.value, value, self.layout.value_size)):
            fault()


class SimulatedQueue(Simulated):
    """A Queue."""

    def __init__(self, spec: MapSpec, world: World | None = None) -> None:
        super().__init__(spec, world)
        self.waiting = Waiting(self.layout)

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Return what waits."""
        return self.waiting.read()

    def push(self, value: object) -> None:
        """Append *value*."""
        if not self.waiting.push(_packed(self.layout.value, value, self.layout.value_size)):
            fault()

    def pop(self, default: Any = None) -> Any:
        """Take the oldest value, else *default*, else zeros."""
        found = self.waiting.pop()
        if found is None and default is not None:
            return default
        return _unpacked(self.layout.value, found or bytes(self.layout.value_size))


class SimulatedHistogram(Simulated):
    """A Histogram."""

    def add(self, value: int, *, by: object = None, weight: int = 1) -> None:
        """Add *weight* to the bucket of *value* under the key *by*."""
        assert self.layout.buckets is not None
        bucket = bucket_of(self.layout.buckets, int(value))
        if not self.storage.add(self.key(by), bucket, int(weight) & _WORD):
            fault()


class SimulatedHashMap(Simulated):
    """A HashMap."""

    def __getitem__(self, key: object) -> Any:
        return self.get(key)

    def __setitem__(self, key: object, value: object) -> None:
        if not self.storage.put(self.key(key), _packed(self.layout.value, value, self.layout.value_size)):
            fault()

    def __delitem__(self, key: object) -> None:
        self.storage.remove(self.key(key))

    def __contains__(self, key: object) -> bool:
        return self.storage.find(self.key(key)) is not None

    def get(self, key: object, default: Any = None) -> Any:
        """Return the value under *key*, else *default*, else zeros."""
        found = self.storage.find(self.key(key))
        if found is None and default is not None:
            return default
        return _unpacked(self.layout.value, found or bytes(self.layout.value_size))

    def pop(self, key: object, default: Any = None) -> Any:
        """Return the value under *key* as `get`, and forget it."""
        found = self.get(key, default)
        self.storage.remove(self.key(key))
        return found


_KINDS: dict[type, type[Simulated]] = {
    Count: SimulatedCount,
    Histogram: SimulatedHistogram,
    HashMap: SimulatedHashMap,
    Sum: SimulatedSum,
    Min: SimulatedFold,
    Max: SimulatedFold,
    Avg: SimulatedFold,
    Stacks: SimulatedStacks,
    Array: SimulatedArray,
    Queue: SimulatedQueue,
}


def simulated(spec: MapSpec, world: World | None = None) -> Simulated:
    """Return the map *spec* for handlers that run in *world* in plain Python.

    Raises:
        UsageError: such maps are not simulated.
    """
    kind = _KINDS.get(type(spec))
    if kind is None:
        raise UsageError(f"kprobes.testing has no {type(spec).__name__} yet", hint=f"it has {', '.join(_names())}")
    return kind(spec, world)


def _names() -> list[str]:
    return [kind.__name__ for kind in _KINDS]


def _packed(fields: tuple[Field, ...], value: Any, size: int) -> bytes:
    parts = value if isinstance(value, tuple) else (value,)
    record = bytearray(size)
    for field, part in zip(fields, parts, strict=True):
        plain = as_value(part)
        if field.kind == "str":
            content = str(plain).encode(errors="surrogateescape")[: field.size - 1].ljust(field.size, b"\0")
        else:
            number = int(bool(plain)) if field.kind == "bool" else int(plain)
            content = (number & (1 << 8 * field.size) - 1).to_bytes(field.size, "little")
        record[field.offset : field.offset + field.size] = content
    return bytes(record)


def _unpacked(fields: tuple[Field, ...], content: bytes) -> Any:
    found = tuple(_value(field, content[field.offset : field.offset + field.size]) for field in fields)
    return found[0] if len(found) == 1 else found


def _value(field: Field, content: bytes) -> Any:
    if field.kind == "str":
        return text(content, field.size) if content.strip(b"\0") else Text("")
    number = int.from_bytes(content, "little", signed=field.kind in ("int", "stack", "user_stack"))
    if field.kind == "bool":
        return Truth(number != 0)
    return u64(number) if field.size == 8 and field.kind not in ("int", "stack", "user_stack") else i64(number)
