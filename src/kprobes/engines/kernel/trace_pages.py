"""Pages of the kernel's trace buffer, as `trace_pipe_raw` gives them: bytes in, events with their times out.

A page begins with the time of its first event (u64) and how many bytes of events follow (a word whose highest bits tell
that events were lost before them, and whether their number stands behind the rest). An event has a head of 32 bits: 5
bits of type or length in words, 27 bits of time since the event before; longer times and longer data have words of
their own.

Source: the texts `events/header_page` and `events/header_event` of tracefs; kernel/trace/ring_buffer.c, Linux 6.12.
"""

from __future__ import annotations

from struct import Struct

from kprobes.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = 16
_HEAD = Struct("<QQ")
_WORD = Struct("<I")
_LOST, _LOST_COUNTED = 1 << 31, 1 << 30
_SIZE_BITS = (1 << 27) - 1
_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31
_TIME_BITS = 27
# An absolute time has no room for its five highest bits: they are those of the time before.
_STAMP_BITS = 59


class Page:
    """One page: *events* are (time in ns of the buffer's clock, start, end) of each event's data in *data*.

    *lost* are the events that the kernel dropped before these, -1 where it didn't count them.
    """

    __slots__ = ("data", "events", "lost")

    def __init__(self, data: bytes) -> None:
        """Take *data* apart.

        Raises:
            FormatError: it is no such page.
        """
        if len(data) < HEAD:
            raise FormatError(f"{len(data)} bytes are no page of a trace buffer")
        time, commit = _HEAD.unpack_from(data)
        end = HEAD + (commit & _SIZE_BITS)
        if end > len(data):
            raise FormatError("a page of a trace buffer is longer than it can be")
        self.data = data
        self.lost = 0
        if commit & _LOST:
            counted = commit & _LOST_COUNTED and end + 8 <= len(data)
            self.lost = int.from_bytes(data[end : end + 8], "little") if counted else -1
        self.events = list(_events(data, end, time))


def _events(data: bytes, end: int, time: int) -> Iterator[tuple[int, int, int]]:
    place = HEAD
    while place + 4 <= end:
        word = _WORD.unpack_from(data, place)[0]
        kind, delta = word & 31, word >> 5
        start = place + 4
        if kind == _PADDING and not delta:
            return  # nothing more was written
        if kind in (_TIME_EXTEND, _TIME_STAMP):
            high = _word_at(data, start, end) << _TIME_BITS
            time = _stamped(time, high + delta) if kind == _TIME_STAMP else time + high + delta
            place = start + 4
            continue
        time += delta
        if kind in (0, _PADDING):
            place = start + _word_at(data, start, end)
            start += 4
        else:
            place = start + 4 * kind
        if not start <= place <= end:
            raise FormatError("an event leaves its page of a trace buffer")
        if kind != _PADDING:
            yield time, start, place


def _word_at(data: bytes, place: int, end: int) -> int:
    if place + 4 > end:
        raise FormatError("an event leaves its page of a trace buffer")
    word: int = _WORD.unpack_from(data, place)[0]
    return word


def _stamped(before: int, stamp: int) -> int:
    """Return the absolute time *stamp* with the bits that it lacks."""
    time = before >> _STAMP_BITS << _STAMP_BITS | stamp
    return time + (1 << _STAMP_BITS) if time < before and before - time > 1 << (_STAMP_BITS - 1) else time
