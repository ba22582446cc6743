"""The interpreter's maps: the same keys, values and limits as the engines', in bytearrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.model.layout import LOG2_BUCKETS, Buckets

if TYPE_CHECKING:
    from kprobes.model.layout import MapLayout

_WORD = (1 << 64) - 1


class Storage:
    """One map. A map without key has the one key `b""`, there from the start."""

    def __init__(self, layout: MapLayout) -> None:
        self.layout = layout
        self._values: dict[bytes, bytearray] = {}
        if not layout.key:
            self._values[b""] = bytearray(layout.value_size)

    def read(self) -> list[tuple[bytes, bytes]]:
        """Return the (key, value) pairs, as an engine's `read_map` does."""
        return [(key, bytes(value)) for key, value in self._values.items()]

    def find(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None."""
        value = self._values.get(key)
        return None if value is None else bytes(value)

    def put(self, key: bytes, value: bytes) -> bool:
        """Store *value*; False where the map is full."""
        if key not in self._values and len(self._values) >= self.layout.max_entries:
            return False
        self._values[key] = bytearray(value)
        return True

    def remove(self, key: bytes) -> bool:
        """Forget *key*; False where it was not there."""
        return self._values.pop(key, None) is not None

    def add(self, key: bytes, index: int, amount: int) -> bool:
        """Add *amount* to the u64 number *index* under *key*, starting from zeros; False where the map is full."""
        if key not in self._values and not self.put(key, bytes(self.layout.value_size)):
            return False
        value = self._values[key]
        at = 8 * index
        total = int.from_bytes(value[at : at + 8], "little") + amount
        value[at : at + 8] = (total & _WORD).to_bytes(8, "little")
        return True


def bucket_of(buckets: Buckets, sample: int) -> int:
    """Return the number of the bucket that *sample* falls in (see `Buckets`)."""
    if buckets.scale == "log2":
        return 0 if sample < 0 else min(1 + sample.bit_length(), LOG2_BUCKETS - 1)
    if sample < buckets.low:
        return 0
    return min((sample - buckets.low) // buckets.step + 1, buckets.count + 1)
