"""The reader's end of the rings in shared memory. The records have the format of the BPF ring buffer.

Each block has a ring of its own, written by one thread at a time and read by us: no locks, no atomic operations. A ring
is a page with the consumer's position, a page with the producer's, and the data. The producer publishes a record by
moving its position once the record is complete; a record never wraps, the end of the data is filled with a discarded
one.

The target can write whatever it likes. Positions are bounded by our own copy of the consumer's, data are copied before
anything in them is looked at (or read once where they lie, see `Reader`), and a ring that makes no sense is emptied and
counted as damaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    Found = TypeVar("Found")
    # Reads records from the front of a view of the ring, at least until the first of them ends that reaches the limit;
    # returns what it made of them, and where the last one ends. The target may change the view meanwhile: nothing in it
    # may be looked at twice. Room is given back after each piece.
    Reader = Callable[[memoryview, int], tuple[Found, int]]

PAGE = 4096
HEADER = 8
BUSY = 1 << 31
DISCARDED = 1 << 30
LENGTH_MASK = DISCARDED - 1
PIECES = 4  # in so many pieces a full ring is read, so that there is room again early


class Ring:
    """The ring at offset *start* of *view*, with *size* bytes of data (a power of two). `damaged` counts resets."""

    __slots__ = ("_consumer", "_data", "_place", "_producer", "_size", "damaged")

    def __init__(self, view: memoryview, start: int, size: int) -> None:
        self._consumer = view[start : start + 8].cast("Q")
        self._producer = view[start + PAGE : start + PAGE + 8].cast("Q")
        self._data = view[start + 2 * PAGE : start + 2 * PAGE + size]
        self._size = size
        self._place = self._consumer[0]
        self.damaged = 0

    @property
    def pending(self) -> int:
        """Return the bytes that the producer says are there."""
        return self._producer[0] - self._place

    def take(self) -> bytes:
        """Return everything that is there, raw: whole records with their headers, some of them discarded."""
        pending = self._bounded()
        if not pending:
            return b""
        start = self._place & self._size - 1
        end = start + pending
        if end <= self._size:
            taken = bytes(self._data[start:end])
        else:
            taken = b"".join((self._data[start:], self._data[: end - self._size]))
        self._place += pending
        self._consumer[0] = self._place
        return taken

    def drain(self, read: Reader[Found]) -> list[Found]:
        """Let *read* look at everything that is there, where it lies, a piece after the other: see `Reader`."""
        found = []
        pending = self._bounded()
        limit = max(self._size // PIECES, HEADER)
        while pending > 0:
            start = self._place & self._size - 1
            piece = self._data[start : min(start + pending, self._size)]
            one, used = read(piece, limit)
            found.append(one)
            used = used if 0 < used <= len(piece) else len(piece)
            pending -= used
            self._place += used
            self._consumer[0] = self._place
        return found

    def _bounded(self) -> int:
        """Return the bytes that are there; 0 where their number makes no sense: then the ring is emptied."""
        produced = self._producer[0]
        pending = produced - self._place
        if 0 <= pending <= self._size and not pending % HEADER:
            return pending
        self.damaged += 1
        self._place = produced & -HEADER
        self._consumer[0] = self._place
        return 0

    def close(self) -> None:
        """Let go of the memory."""
        for view in (self._consumer, self._producer, self._data):
            view.release()


def split(raw: bytes) -> list[bytes]:
    """Return the records in *raw*, without headers; it ends at the first one that doesn't fit."""
    found = []
    place, end = 0, len(raw)
    while place + HEADER <= end:
        word = int.from_bytes(raw[place : place + 4], "little")
        length = word & LENGTH_MASK
        following = place + HEADER + (length + 7 & ~7)
        if following > end or word & BUSY:
            break
        if not word & DISCARDED:
            found.append(raw[place + HEADER : place + HEADER + length])
        place = following
    return found


class Rings:
    """All rings of one session; *places* are the (offset, size) of each."""

    def __init__(self, view: mmap.mmap, places: Iterable[tuple[int, int]]) -> None:
        self._whole = memoryview(view)
        self._rings = [Ring(self._whole, start, size) for start, size in places]

    @property
    def damaged(self) -> int:
        """Return how often a ring made no sense and was emptied."""
        return sum(ring.damaged for ring in self._rings)

    def take(self) -> list[bytes]:
        """Return what each ring has, raw; empty where none has anything."""
        return [taken for ring in self._rings if ring.pending and (taken := ring.take())]

    def drain(self, read: Reader[Found]) -> list[Found]:
        """Let *read* look at what each ring has."""
        return [one for ring in self._rings if ring.pending for one in ring.drain(read)]

    def close(self) -> None:
        """Let go of the memory."""
        for ring in self._rings:
            ring.close()
        self._whole.release()
