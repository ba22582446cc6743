"""The interpreter's maps: the same keys, values and limits as the engines', in bytearrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.model.layout import LOG2_BUCKETS, Buckets, rank_of

if TYPE_CHECKING:
    from kprobes.model.layout import MapLayout

_WORD = (1 << 64) - 1


class Storage:
    """One map. A map without key has the one key `b""`, there from the start. *dropped* counts writes that found no
    room; an `lru` map makes room."""

    def __init__(self, layout: MapLayout) -> None:
        self.layout = layout
        self.dropped = 0
        self._values: dict[bytes, bytearray] = {}
        if not layout.key:
            self._values[b""] = bytearray(layout.value_size)

    def read(self) -> list[tuple[bytes, bytes]]:
        """Return the (key, value) pairs, as an engine's `read_map` does."""
        return [(key, bytes(value)) for key, value in self._values.items()]

    def find(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None."""
        value = self._values.get(key)
        if value is None:
            return None
        self._use(key)
        return bytes(value)

    def put(self, key: bytes, value: bytes) -> bool:
        """Store *value*; False where the map is full."""
        if key not in self._values and len(self._values) >= self.layout.max_entries:
            if self.layout.kind != "lru":
                self.dropped += 1
                return False
            del self._values[next(iter(self._values))]
        self._values[key] = bytearray(value)
        self._use(key)
        return True

    def _use(self, key: bytes) -> None:
        """Let *key* be the last that goes."""
        if self.layout.kind == "lru":
            self._values[key] = self._values.pop(key)

    def remove(self, key: bytes) -> bool:
        """Forget *key*; False where it was not there."""
        return self._values.pop(key, None) is not None

    def add(self, key: bytes, index: int, amount: int) -> bool:
        """Add *amount* to the u64 number *index* under *key*, starting from zeros; False where the map is full."""
        if key not in self._values and not self.put(key, bytes(self.layout.value_size)):
            return False
        self._use(key)
        _add(self._values[key], 8 * index, amount)
        return True

    def fold(self, key: bytes, sample: int) -> bool:
        """Take *sample* in under *key*; False where the map is full."""
        kind = self.layout.kind
        if kind == "avg":
            return self.add(key, 0, 1) and self.add(key, 1, sample)
        if not self.add(key, 1, 0):
            return False
        value = self._values[key]
        best = max(int.from_bytes(value[:8], "little"), rank_of(kind, sample))
        value[:16] = best.to_bytes(8, "little") + (1).to_bytes(8, "little")
        return True


class Elements:
    """An array of values by index."""

    def __init__(self, layout: MapLayout) -> None:
        self.layout = layout
        self._values = bytearray(layout.value_size * layout.max_entries)

    def read(self) -> list[tuple[bytes, bytes]]:
        """Return the one pair of an array, as an engine does."""
        return [(b"", bytes(self._values))]

    def find(self, index: int) -> bytes | None:
        """Return value number *index*, None outside."""
        if not 0 <= index < self.layout.max_entries:
            return None
        at = index * self.layout.value_size
        return bytes(self._values[at : at + self.layout.value_size])

    def put(self, index: int, value: bytes) -> bool:
        """Store *value*; False outside."""
        if not 0 <= index < self.layout.max_entries:
            return False
        at = index * self.layout.value_size
        self._values[at : at + len(value)] = value
        return True

    def add(self, index: int, amount: int) -> bool:
        """Add *amount* to the u64 number *index*; False outside."""
        if not 0 <= index < self.layout.max_entries:
            return False
        _add(self._values, index * self.layout.value_size, amount)
        return True


class Waiting:
    """A queue of values. *dropped* counts those that found no room."""

    def __init__(self, layout: MapLayout) -> None:
        self.layout = layout
        self.dropped = 0
        self._values: list[bytes] = []

    def read(self) -> list[tuple[bytes, bytes]]:
        """Return what waits, the oldest first, as an engine's `take_map` does."""
        return [(b"", value) for value in self._values]

    def push(self, value: bytes) -> bool:
        """Append *value*; False where there is no room."""
        if len(self._values) >= self.layout.max_entries:
            self.dropped += 1
            return False
        self._values.append(value)
        return True

    def pop(self) -> bytes | None:
        """Take the oldest value, None where there is none."""
        return self._values.pop(0) if self._values else None


def storage_of(layout: MapLayout) -> Storage | Elements | Waiting:
    """Return an empty map of *layout*."""
    if layout.kind == "array":
        return Elements(layout)
    return Waiting(layout) if layout.kind == "queue" else Storage(layout)


def _add(value: bytearray, at: int, amount: int) -> None:
    total = int.from_bytes(value[at : at + 8], "little") + amount
    value[at : at + 8] = (total & _WORD).to_bytes(8, "little")


def bucket_of(buckets: Buckets, sample: int) -> int:
    """Return the number of the bucket that *sample* falls in (see `Buckets`)."""
    if buckets.scale == "log2":
        return 0 if sample < 0 else min(1 + sample.bit_length(), LOG2_BUCKETS - 1)
    if sample < buckets.low:
        return 0
    return min((sample - buckets.low) // buckets.step + 1, buckets.count + 1)
