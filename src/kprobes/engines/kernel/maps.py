"""The maps of a plan: created from their layouts, read with as few system calls as the kernel allows."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from itertools import takewhile

from kprobes.engines.atomic import Words
from kprobes.engines.kernel import syscall
from kprobes.engines.kernel.syscall import MapFlag, MapShape, MapType
from kprobes.errors import InternalError, PrivilegeError
from kprobes.model.layout import META_WINDOW, RANKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.model.layout import MapLayout

_ZERO_KEY = bytes(4)
_AGGREGATES = ("count", "histogram", "min", "max", "avg")
_HASHES = (MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH)
_BATCH_BYTES = 1 << 20
_BATCH_END = (errno.ENOENT,)
_NO_BATCH = (errno.EINVAL, syscall.ENOTSUPP, errno.EOPNOTSUPP)


def shape_of(layout: MapLayout) -> MapShape:
    """Return how *layout* is created in the kernel.

    Aggregates without a key are one entry of an array that user space maps, so that reading costs no system call.
    Hash maps are preallocated: a handler may run where the kernel can't allocate. Where a value is compared with before
    it is replaced each CPU has its own, which no other one changes in between.
    """
    kind = layout.kind
    if kind == "ring":
        return MapShape(MapType.RINGBUF, 0, 0, layout.max_entries)
    if kind == "stacks":
        return MapShape(MapType.STACK_TRACE, 4, layout.value_size, layout.max_entries)
    if kind == "constants":
        return MapShape(MapType.ARRAY, 4, layout.value_size, 1, MapFlag.RDONLY_PROG)
    if kind == "frames":
        return MapShape(MapType.ARRAY, 4, layout.value_size, 1)
    if kind == "scratch":
        return MapShape(MapType.PERCPU_ARRAY, 4, layout.value_size, 1)
    if kind == "queue":
        return MapShape(MapType.QUEUE, 0, layout.value_size, layout.max_entries)
    if kind in ("stats", "meta", "array") or (kind in _AGGREGATES and not layout.key):
        return MapShape(MapType.ARRAY, 4, memory_of(layout), 1, MapFlag.MMAPABLE)
    if kind in RANKS:
        return MapShape(MapType.PERCPU_HASH, layout.key_size, layout.value_size, layout.max_entries)
    if kind in _AGGREGATES or kind in ("hash", "lru", "calls"):
        type_ = MapType.LRU_HASH if kind == "lru" else MapType.HASH
        return MapShape(type_, layout.key_size, layout.value_size, layout.max_entries)
    raise InternalError(f"no kernel map is known for the kind {kind!r} of {layout.name!r}")


def memory_of(layout: MapLayout) -> int:
    """Return the bytes of a map that is one piece of memory."""
    return layout.value_size * (layout.max_entries if layout.kind == "array" else 1)


class KernelMap:
    """One map: owns its descriptor, and its memory where it is mapped."""

    def __init__(self, layout: MapLayout) -> None:
        self.layout = layout
        self.shape = shape_of(layout)
        self.fd = _create(layout.name, self.shape)
        self._is_shared_out = self.shape.type == MapType.PERCPU_HASH
        self._value_size = layout.value_size * (possible_cpus() if self._is_shared_out else 1)
        self._memory: mmap.mmap | None = None
        try:
            if layout.kind == "constants":
                syscall.map_update(self.fd, _ZERO_KEY, layout.initial.ljust(layout.value_size, b"\0"))
                syscall.map_freeze(self.fd)
            elif self.shape.flags & MapFlag.MMAPABLE:
                self._memory = mmap.mmap(self.fd, _page_up(memory_of(layout)), mmap.MAP_SHARED)
                if layout.initial:
                    self._memory[: len(layout.initial)] = layout.initial
        except BaseException:
            os.close(self.fd)
            raise

    def read(self) -> list[tuple[bytes, bytes]]:
        """Return all (key, value) pairs; an array map gives one pair with the key `b""`."""
        if self._memory is not None:
            return [(b"", self._memory[: memory_of(self.layout)])]
        if self.shape.type == MapType.ARRAY:
            return [(b"", syscall.map_lookup(self.fd, _ZERO_KEY, self.layout.value_size) or b"")]
        if self.shape.type in _HASHES:
            pairs = self._read_batches()
            pairs = list(self._walk()) if pairs is None else pairs
            return [(key, best_of(value)) for key, value in pairs] if self._is_shared_out else pairs
        if self.shape.type == MapType.STACK_TRACE:
            return list(self._walk())
        return []

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None."""
        return syscall.map_lookup(self.fd, key, self.layout.value_size)

    def take(self) -> list[tuple[bytes, bytes]]:
        """Return all pairs, and leave nothing of them; of a queue the values, each with the key `b""`.

        Raises:
            InternalError: maps of this kind are not taken like that.
        """
        kind = self.layout.kind
        if kind == "queue":
            values = (syscall.map_take(self.fd, self.layout.value_size) for _ in range(self.layout.max_entries))
            return [(b"", value) for value in takewhile(lambda value: value is not None, values) if value is not None]
        if kind in ("hash", "lru"):
            pairs = self._read_batches(take=True)
            return list(self._walk(take=True)) if pairs is None else pairs
        if self._memory is None or kind not in ("min", "max", "array"):
            raise InternalError(f"a {kind} is not taken as a whole")
        with Words(self._memory) as words:
            # The last word of a share first: that there is a value is said after the value (see `RANKS`).
            found = [words.exchange(at, 0) for at in reversed(range(0, memory_of(self.layout), 8))]
        return [(b"", struct.pack(f"<{len(found)}Q", *reversed(found)))]

    def take_old(self, window: int) -> list[tuple[bytes, bytes]]:
        """Return the pairs of a windowed map that belong to other windows than *window*, and take them out."""
        own = window.to_bytes(8, "little")
        pairs = [pair for pair in self.read() if pair[0][-8:] != own]
        for key, _ in pairs:
            syscall.map_delete(self.fd, key)
        return pairs

    def begin_window(self) -> int:
        """Let what is added from now on go into a new window; return its number. For the `meta` of a windowed map."""
        if self._memory is None:
            raise InternalError(f"the map {self.layout.name!r} numbers no windows")
        number = int.from_bytes(self._memory[META_WINDOW : META_WINDOW + 8], "little") + 1
        self._memory[META_WINDOW : META_WINDOW + 8] = number.to_bytes(8, "little")
        return number

    def _read_batches(self, *, take: bool = False) -> list[tuple[bytes, bytes]] | None:
        """Return all pairs of a hash map, or None where the kernel has no batches (before Linux 5.6)."""
        key_size, value_size = self.layout.key_size, self._value_size
        count = max(64, min(self.layout.max_entries, _BATCH_BYTES // (key_size + value_size)))
        pairs: list[tuple[bytes, bytes]] = []
        place: bytes | None = None
        while True:
            batch = syscall.map_lookup_batch(self.fd, (key_size, value_size), count, place, take=take)
            if batch.code in _NO_BATCH and place is None:
                return None
            if batch.code == errno.ENOSPC and count < self.layout.max_entries:
                count *= 2  # one bucket holds more than that: colliding keys
                continue
            if batch.code and batch.code not in _BATCH_END:
                raise syscall.failure(f"reading the map {self.layout.name}", batch.code)
            pairs += zip(_pieces(batch.keys, key_size), _pieces(batch.values, value_size), strict=True)
            if batch.code:
                return pairs
            place = batch.place

    def _walk(self, *, take: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs one by one. A key that goes meanwhile makes the kernel start over, so count the steps."""
        key = syscall.map_next_key(self.fd, None, self.shape.key_size)
        seen = set()
        while key is not None and key not in seen:
            seen.add(key)
            value = syscall.map_lookup(self.fd, key, self._value_size)
            if value is not None:
                yield key, value
            if take:
                syscall.map_delete(self.fd, key)
                key = None
            key = syscall.map_next_key(self.fd, key, self.shape.key_size)

    def close(self) -> None:
        """Let go of the map; idempotent."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def best_of(value: bytes) -> bytes:
    """Return the shares of all CPUs of a `min` or `max` as one: (rank, whether there is one) of the highest rank."""
    words = struct.unpack(f"<{len(value) // 8}Q", value)
    return struct.pack("<QQ", max(words[::2]), max(words[1::2]))


def possible_cpus() -> int:
    """Return for how many CPUs the kernel keeps values of a per-CPU map."""
    from kprobes.engines.kernel.features import count_cpus

    return count_cpus()


def parse_stack(value: bytes) -> tuple[int, ...]:
    """Return the addresses in a stack map's *value*, innermost first, without the unused ones at its end."""
    addresses = struct.unpack(f"<{len(value) // 8}Q", value[: len(value) // 8 * 8])
    return addresses[: addresses.index(0)] if 0 in addresses else addresses


def wait_for_programs() -> None:
    """Wait until every program has ended that runs now.

    The kernel does that (synchronize_rcu) whenever user space changes a map of maps.

    Source: maybe_wait_bpf_programs in kernel/bpf/syscall.c, since Linux 4.15.
    """
    inner = syscall.map_create("inner", MapShape(MapType.ARRAY, 4, 4, 1))
    try:
        outer = syscall.map_create("outer", MapShape(MapType.ARRAY_OF_MAPS, 4, 4, 1, inner=inner))
        try:
            syscall.map_update(outer, _ZERO_KEY, struct.pack("<I", inner))
        finally:
            os.close(outer)
    finally:
        os.close(inner)


def _create(name: str, shape: MapShape) -> int:
    try:
        return syscall.map_create(name, shape)
    except PrivilegeError:
        # Until Linux 5.11 maps count against RLIMIT_MEMLOCK, and the kernel's answer to that is EPERM.
        if not _raise_memlock():
            raise
    return syscall.map_create(name, shape)


def _raise_memlock() -> bool:
    import resource  # only old kernels need it

    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        return False
    return True


def _page_up(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _pieces(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]
