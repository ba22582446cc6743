"""The maps of a plan: created from their layouts, read with as few system calls as the kernel allows."""

from __future__ import annotations

import errno
import mmap
import os
import struct

from kprobes.engines.kernel import syscall
from kprobes.engines.kernel.syscall import MapFlag, MapShape, MapType
from kprobes.errors import InternalError, PrivilegeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.model.layout import MapLayout

_ZERO_KEY = bytes(4)
_BATCH_BYTES = 1 << 20
_BATCH_END = (errno.ENOENT,)
_NO_BATCH = (errno.EINVAL, syscall.ENOTSUPP, errno.EOPNOTSUPP)


def shape_of(layout: MapLayout) -> MapShape:
    """Return how *layout* is created in the kernel.

    Aggregates without a key are one entry of an array that user space maps, so that reading costs no system call.
    Hash maps are preallocated: a handler may run where the kernel can't allocate.
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
    if kind == "stats" or (kind in ("count", "histogram") and not layout.key):
        return MapShape(MapType.ARRAY, 4, layout.value_size, 1, MapFlag.MMAPABLE)
    if kind in ("count", "histogram", "hash", "calls"):
        return MapShape(MapType.HASH, layout.key_size, layout.value_size, layout.max_entries)
    raise InternalError(f"no kernel map is known for the kind {kind!r} of {layout.name!r}")


class KernelMap:
    """One map: owns its descriptor, and its memory where it is mapped."""

    def __init__(self, layout: MapLayout) -> None:
        self.layout = layout
        self.shape = shape_of(layout)
        self.fd = _create(layout.name, self.shape)
        self._memory: mmap.mmap | None = None
        try:
            if layout.kind == "constants":
                syscall.map_update(self.fd, _ZERO_KEY, layout.initial.ljust(layout.value_size, b"\0"))
                syscall.map_freeze(self.fd)
            elif self.shape.flags & MapFlag.MMAPABLE:
                self._memory = mmap.mmap(self.fd, _page_up(layout.value_size), mmap.MAP_SHARED)
                if layout.initial:
                    self._memory[: len(layout.initial)] = layout.initial
        except BaseException:
            os.close(self.fd)
            raise

    def read(self) -> list[tuple[bytes, bytes]]:
        """Return all (key, value) pairs; an array map gives one pair with the key `b""`."""
        if self._memory is not None:
            return [(b"", self._memory[: self.layout.value_size])]
        if self.shape.type == MapType.ARRAY:
            return [(b"", syscall.map_lookup(self.fd, _ZERO_KEY, self.layout.value_size) or b"")]
        if self.shape.type == MapType.HASH:
            pairs = self._read_batches()
            return list(self._walk()) if pairs is None else pairs
        if self.shape.type == MapType.STACK_TRACE:
            return list(self._walk())
        return []

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None."""
        return syscall.map_lookup(self.fd, key, self.layout.value_size)

    def _read_batches(self) -> list[tuple[bytes, bytes]] | None:
        """Return all pairs of a hash map, or None where the kernel has no batches (before Linux 5.6)."""
        key_size, value_size = self.layout.key_size, self.layout.value_size
        count = max(64, min(self.layout.max_entries, _BATCH_BYTES // (key_size + value_size)))
        pairs: list[tuple[bytes, bytes]] = []
        place: bytes | None = None
        while True:
            batch = syscall.map_lookup_batch(self.fd, (key_size, value_size), count, place)
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

    def _walk(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs one by one. A key that goes meanwhile makes the kernel start over, so count the steps."""
        key = syscall.map_next_key(self.fd, None, self.shape.key_size)
        seen = set()
        while key is not None and key not in seen:
            seen.add(key)
            value = syscall.map_lookup(self.fd, key, self.layout.value_size)
            if value is not None:
                yield key, value
            key = syscall.map_next_key(self.fd, key, self.shape.key_size)

    def close(self) -> None:
        """Let go of the map; idempotent."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def parse_stack(value: bytes) -> tuple[int, ...]:
    """Return the addresses in a stack map's *value*, innermost first, without the unused ones at its end."""
    addresses = struct.unpack(f"<{len(value) // 8}Q", value[: len(value) // 8 * 8])
    return addresses[: addresses.index(0)] if 0 in addresses else addresses


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
