"""Ring records to events.

Records mostly come in long runs of one layout. Such a run is found by comparing whole columns of record heads at
once, and decoded by one `struct` that walks all of it; only where layouts alternate is a record looked at by itself.
Bytes come from a target that may be hostile: what fits no layout is counted in `damaged` and skipped.
"""

from __future__ import annotations

from struct import Struct

from kprobes.events.record import Codec, Event
from kprobes.model.layout import RECORD_HEADER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from kprobes.events.arrow import Tables
    from kprobes.model.layout import EventLayout

    Uniform = Callable[[int, int, int, tuple[int, int]], int]

__all__ = ["Decoder", "Event", "Piece", "Run"]

# The head of a record in the ring: u32 length with two flags, u32 page offset. Source: linux/bpf.h, BPF_RINGBUF_*.
RING_HEADER = 8
_HEAD = Struct("<I4xI")  # and the record's first word, its event id
BUSY = 1 << 31
DISCARDED = 1 << 30
LENGTH_MASK = DISCARDED - 1

# A run is tried with this many records, and with four times as many after each success.
_FIRST_WINDOW = 16
_LAST_WINDOW = 1 << 16
# So many records are taken one by one before the next try.
_SINGLES = 64


class Run:
    """*length* records of one codec in *data*, every *stride* bytes from *start*; each begins *skip* bytes in."""

    __slots__ = ("codec", "data", "length", "skip", "start", "stride")

    def __init__(self, codec: Codec, data: memoryview, start: int, *, stride: int, skip: int, length: int) -> None:
        self.codec = codec
        self.data = data
        self.start = start
        self.stride = stride
        self.skip = skip
        self.length = length

    def reaches(self, other: Run) -> bool:
        """Tell whether *other*, which lies in the same data, goes on where this one ends."""
        return (
            self.codec is other.codec
            and self.stride == other.stride
            and self.start + self.stride * self.length == other.start
        )

    def events(self) -> list[Event]:
        """Return the records as events."""
        span = self.data[self.start : self.start + self.stride * self.length]
        return list(map(self.codec.event, self.codec.rows(self.stride, self.skip).iter_unpack(span)))


Piece = Run | list[Event]


class Decoder:
    """Decodes the records of one plan.

    *damaged* counts records that fit no layout, and spans that end within a record: none, unless something scribbled
    over the ring.
    """

    __slots__ = ("_by_id", "_makers", "_readers", "codecs", "damaged")

    def __init__(self, layouts: Sequence[EventLayout], sites: Sequence[str]) -> None:
        """Compile *layouts*; *sites* are the names of the plan's sites, by number.

        Raises:
            FormatError: a layout is inconsistent.
        """
        self.codecs = tuple(Codec(layout, sites) for layout in layouts)
        self._by_id = {codec.layout.id: codec for codec in self.codecs}
        self._readers = {key: (c.layout.size, c.event, c.unpack_from) for key, c in self._by_id.items()}
        self._makers: dict[bool, Tables] = {}
        self.damaged = 0

    def decode(self, records: Sequence[bytes]) -> list[Event]:
        """Return the events of *records* (without ring headers), in order."""
        return _flatten(self.pieces(records))

    def decode_raw(self, span: bytes | memoryview) -> list[Event]:
        """Return the events of *span*, raw bytes of a BPF ring from a record's head on, in order.

        Discarded records are left out. The walk ends at a record that is still being written.
        """
        return _flatten(self.pieces_raw(span))

    def columns(self, records: Sequence[bytes]) -> dict[str, list[Any]]:
        """Return *records* as columns: `event`, `site`, then all fields of all layouts; None where one is missing."""
        from kprobes.events.columns import columns

        return columns(self.pieces(records), self.codecs)

    def to_arrow(self, records: Sequence[bytes], *, text: bool = False) -> Any:
        """Return *records* as a `pyarrow.Table`: `event`, `site`, then the fields of all layouts.

        Strings are binary columns with their exact bytes; with *text* they are string columns, in which bytes that
        are no UTF-8 stand as `\\xNN`.

        Raises:
            UnsupportedError: pyarrow isn't installed.
        """
        return self.tables(text=text).of(self.pieces(records))

    def to_arrow_raw(self, span: bytes | memoryview, *, text: bool = False) -> Any:
        """As `to_arrow`, for raw bytes of a ring as `decode_raw` takes them."""
        return self.tables(text=text).of_span(memoryview(span).cast("B"))[0]

    def tables(self, *, text: bool = False) -> Tables:
        """Return what makes tables as `to_arrow` does, also straight from the memory of a ring.

        Raises:
            UnsupportedError: pyarrow isn't installed.
        """
        found = self._makers.get(text)
        if found is None:
            from kprobes.events.arrow import Tables

            found = self._makers[text] = Tables(self, text=text)
        return found

    def pieces(self, records: Sequence[bytes]) -> list[Piece]:
        """Return *records* as runs of one layout where there are such, otherwise as events."""
        if not records:
            return []
        size = len(records[0])
        codec = self._codec(records[0])
        count = len(records)
        if codec is not None and size % 8 == 0 and set(map(len, records)) == {size}:
            view = memoryview(b"".join(records))
            if _column(view, 0, size, count) == records[0][:4] * count:
                return [Run(codec, view, 0, stride=size, skip=0, length=count)]
        return [self._singles(records)]

    def pieces_raw(self, span: bytes | memoryview) -> list[Piece]:
        """Return the records of a raw *span* as runs of one layout and, between them, events."""
        return self.pieces_until(memoryview(span).cast("B"))[0]

    def pieces_until(
        self, view: memoryview, limit: int = 1 << 62, uniform: Uniform | None = None
    ) -> tuple[list[Piece], int]:
        """Return the records of *view* as `pieces_raw`, and where the first ends that reaches *limit* bytes.

        *uniform* counts records that are alike: (position, stride, at most, (head, event id)) -> how many.
        """
        pieces: list[Piece] = []
        position = 0
        for piece, position in self._walk(view, limit, uniform):  # noqa: B007 - the last one counts
            last = pieces[-1] if pieces else None
            if isinstance(piece, Run) and isinstance(last, Run) and last.reaches(piece):
                last.length += piece.length
            else:
                pieces.append(piece)
        return pieces, position

    def _codec(self, record: bytes | memoryview) -> Codec | None:
        """Return the codec of *record* if it is long enough for it."""
        codec = self._by_id.get(int.from_bytes(record[:4], "little"))
        return codec if codec is not None and len(record) >= codec.layout.size else None

    def _singles(self, records: Sequence[bytes]) -> list[Event]:
        known = {key.to_bytes(4, "little"): reader for key, reader in self._readers.items()}
        events = []
        for record in records:
            reader = known.get(record[:4])
            if reader is None or len(record) < reader[0]:
                self.damaged += 1
            else:
                events.append(reader[1](reader[2](record)))
        return events

    def _walk(self, view: memoryview, limit: int, uniform: Uniform | None) -> Iterator[tuple[Piece, int]]:
        """Yield pieces, each with the position behind it."""
        position = 0
        window = _FIRST_WINDOW if uniform is None else limit
        end = min(limit, len(view))
        while position < end:
            run = self._run(view, position, window, uniform)
            if run is not None:
                position += run.stride * run.length
                window = min(window * 4, _LAST_WINDOW) if uniform is None else limit - position
                yield run, position
                continue
            events, position = self._some(view, position)
            window = _FIRST_WINDOW if uniform is None else limit - position
            yield events, position

    def _run(self, view: memoryview, position: int, window: int, uniform: Uniform | None) -> Run | None:
        """Return the next records as a run if they have one length and one layout: *window* of them, or with *uniform*
        those that begin in *window* bytes."""
        head = int.from_bytes(view[position : position + 4], "little")
        stride = RING_HEADER + -(-head // 8) * 8
        if head > LENGTH_MASK or head < RECORD_HEADER:
            return None
        most = window if uniform is None else -(-window // stride)
        count = min((len(view) - position) // stride, most)
        if count < _FIRST_WINDOW // 2:
            return None
        codec = self._codec(view[position + RING_HEADER : position + RING_HEADER + head])
        if codec is None:
            return None
        if uniform is None:
            alike = self._are_alike(view, position, stride, count, codec)
        else:
            count = uniform(position, stride, count, (head, codec.layout.id))
            alike = count >= _FIRST_WINDOW // 2
        return Run(codec, view, position, stride=stride, skip=RING_HEADER, length=count) if alike else None

    @staticmethod
    def _are_alike(view: memoryview, position: int, stride: int, count: int, codec: Codec) -> bool:
        if _column(view, position, stride, count) != bytes(view[position : position + 4]) * count:
            return False
        return _column(view, position + RING_HEADER, stride, count) == codec.layout.id.to_bytes(4, "little") * count

    def _some(self, view: memoryview, position: int) -> tuple[list[Event], int]:
        """Decode up to *_SINGLES* records one by one; return them and the position behind them."""
        events: list[Event] = []
        end = len(view)
        unpack_head = _HEAD.unpack_from
        for _ in range(_SINGLES):
            if position + _HEAD.size > end:
                return events, self._end(view, position)
            head, event_id = unpack_head(view, position)
            start = position + RING_HEADER
            length = head & LENGTH_MASK
            if head & BUSY or start + length > end:
                return events, self._end(view, position)
            position = start + (length + 7 & -8)
            if head & DISCARDED:
                continue
            reader = self._readers.get(event_id)
            if reader is None or length < reader[0]:
                self.damaged += 1
            else:
                events.append(reader[1](reader[2](view, start)))
        return events, position

    def _end(self, view: memoryview, position: int) -> int:
        """Return the end of *view*; only a busy or an empty discarded record may be left there."""
        rest = view[position:]
        head = int.from_bytes(rest[:4], "little")
        discarded = head == DISCARDED and len(rest) == RING_HEADER
        fine = not rest or (len(rest) >= RING_HEADER and (head & BUSY or discarded))
        self.damaged += not fine
        return len(view)


def _column(view: memoryview, start: int, stride: int, count: int) -> bytes:
    """Return the u32 at *start* of each of *count* strides, one after the other."""
    words = view[start : start + stride * (count - 1) + 4].cast("I")
    return words[:: stride // 4].tobytes()


def _flatten(pieces: list[Piece]) -> list[Event]:
    if len(pieces) == 1:
        piece = pieces[0]
        return piece if isinstance(piece, list) else piece.events()
    events: list[Event] = []
    for piece in pieces:
        events.extend(piece if isinstance(piece, list) else piece.events())
    return events
