"""The consumer of a BPF ring buffer: the event path, so it makes no Python call per record that it can avoid.

The kernel maps, at these offsets of the map's descriptor: the page of the consumer's position (ours to write), the page
of the producer's position, and the data twice in a row, so that a record that wraps is still one piece. A record has a
header of 8 bytes (u32 length with the two flags below, u32 page offset) and takes a multiple of 8 bytes.

The headers are read in place until one is found busy, and only then the records are copied: copied first, a record
could be torn that is committed between the two. On x86-64 loads are not reordered; elsewhere the interpreter's own
work between the two reads is what separates them.

Source: kernel/bpf/ringbuf.c, Linux 6.18.
"""

from __future__ import annotations

import mmap
import select
import time

from kprobes.errors import FormatError

BUSY = 1 << 31
DISCARDED = 1 << 30
HEADER = 8

# One batch is bounded, so that the producer gets its room back while a reader that is behind still reads.
_BATCH_BYTES = 4 << 20

# A record in front that is not finished yet is looked at again after this time.
_BUSY_S = 0.0002

# So many records are looked at before all headers are fetched at once in the hope that they are alike.
_SAMPLE = 8


class Span:
    """Committed records as they lay in the ring: *data* with their 8-byte headers.

    *stride* > 0 says that the span is uniform: records of that many bytes, header and padding included, none of them
    discarded, each of *length* bytes. Otherwise *bounds* are the (start, end) of each record in *data*.
    """

    __slots__ = ("bounds", "data", "length", "stride")

    def __init__(self, data: bytes, stride: int = 0, length: int = 0, bounds: tuple[tuple[int, int], ...] = ()) -> None:
        self.data = data
        self.stride = stride
        self.length = length
        self.bounds = bounds

    def __len__(self) -> int:
        return len(self.data) // self.stride if self.stride else len(self.bounds)

    def records(self) -> list[bytes]:
        """Return the records one by one, without their headers."""
        data = self.data
        if self.stride:
            length = self.length
            return [data[at : at + length] for at in range(HEADER, len(data), self.stride)]
        return [data[start:end] for start, end in self.bounds]


EMPTY = Span(b"")


def committed(headers: memoryview, reserved: int) -> tuple[int, Span]:
    """Return how many bytes at the front of the ring may be taken now, and the shape of that span (no data yet).

    *headers* are the ring's u32 words from the consumer's position on, *reserved* the bytes that the producer has
    handed out. Nothing beyond *reserved* is read or returned, whatever the lengths say.

    Raises:
        FormatError: a length points beyond what was reserved.
    """
    window = min(reserved, _BATCH_BYTES)
    first = headers[0]
    stride = (first + HEADER + 7) & ~7
    if not first & (BUSY | DISCARDED) and stride <= window:
        count = _uniform(headers, stride, window)
        if count:
            return count * stride, Span(b"", stride, first)
    return _mixed(headers, reserved, window)


def _uniform(headers: memoryview, stride: int, window: int) -> int:
    """Return how many records at the front are like the first one, or 0 where walking them singly is better."""
    first, step, whole = headers[0], stride // 4, window // stride
    if headers[: min(whole, _SAMPLE) * step : step].tolist().count(first) < min(whole, _SAMPLE):
        return 0
    lengths = headers[: whole * step : step].tolist()
    same = lengths.count(first)
    if same < whole:
        same = next(at for at, length in enumerate(lengths) if length != first)
        if same < whole // 2 and not lengths[same] & BUSY:
            return 0
    return same


def _mixed(headers: memoryview, reserved: int, window: int) -> tuple[int, Span]:
    bounds = []
    place = 0
    while place < window:
        word = headers[place // 4]
        if word & BUSY:
            break
        length = word & ~DISCARDED
        following = place + ((length + HEADER + 7) & ~7)
        if following > reserved:
            raise FormatError(f"a ring record of {length} bytes does not fit in the {reserved - place} that are there")
        if not word & DISCARDED:
            bounds.append((place + HEADER, place + HEADER + length))
        place = following
    return place, Span(b"", bounds=tuple(bounds))


def span_of(data: bytes) -> Span:
    """Return whole records, as they lay in a ring, as a span.

    Raises:
        FormatError: *data* ends within a record.
    """
    if len(data) % 8:
        raise FormatError(f"{len(data)} bytes are no records of a ring")
    place, shape = _mixed(memoryview(data).cast("I"), len(data), len(data))
    if place != len(data):
        raise FormatError("a record of a ring is not finished")
    return Span(data, bounds=shape.bounds)


class Ring:
    """The reader's end of one ring buffer map; the descriptor stays the map's."""

    def __init__(self, fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self._size = size
        self._consumer_page = mmap.mmap(fd, page, mmap.MAP_SHARED)
        # Python's mmap wants the whole length from one offset: producer page, then the data twice.
        self._data_pages = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer = memoryview(self._consumer_page).cast("Q")
        view = memoryview(self._data_pages)
        self._producer = view[:page].cast("Q")
        self._data = view[page:]
        self._words = self._data.cast("I")
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    @property
    def pending(self) -> int:
        """Return the bytes that are reserved and not yet taken."""
        return self._producer[0] - self._consumer[0]

    def wait(self, timeout_s: float) -> bool:
        """Wait for a record for up to *timeout_s* seconds; return whether one may be there."""
        return bool(self.pending) or bool(self._poll.poll(max(0, timeout_s) * 1000))

    def poll_raw(self, timeout_s: float = 0) -> Span:
        """Return the committed records at the front (up to 4 MB), waiting up to *timeout_s* for the first.

        Raises:
            FormatError: the ring is damaged.
        """
        end = time.monotonic() + timeout_s if timeout_s > 0 else 0.0
        while True:
            span = self._take()
            if span.data or not end or (left := end - time.monotonic()) <= 0:
                return span
            if self.pending:
                time.sleep(_BUSY_S)  # whoever writes the record in front was preempted; poll(2) would not wait for it
            else:
                self.wait(left)

    def _take(self) -> Span:
        place = self._consumer[0]
        reserved = self._producer[0] - place
        if not reserved:
            return EMPTY
        if not 0 < reserved <= self._size:
            raise FormatError(f"the ring claims {reserved} bytes and has {self._size}")
        start = place % self._size
        extent, shape = committed(self._words[start // 4 : (start + reserved) // 4], reserved)
        span = Span(bytes(self._data[start : start + extent]), shape.stride, shape.length, shape.bounds)
        self._consumer[0] = place + extent
        return span

    def close(self) -> None:
        """Unmap; idempotent."""
        for view in (self._words, self._data, self._producer, self._consumer):
            view.release()
        self._data_pages.close()
        self._consumer_page.close()
