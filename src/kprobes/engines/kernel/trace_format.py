"""From a probe event in the kernel's trace buffer to a record of ours.

The `format` file of an event says where its fields lie. A string is a word (offset in the lower half, length in the
upper one, 0 where it could not be read), an array its elements one behind the other.

Source: Documentation/trace/events.rst, "Event formats"; kernel/trace/trace_probe.c, Linux 5.10 to 6.12.
"""

from __future__ import annotations

import re
from struct import Struct

from kprobes.errors import FormatError
from kprobes.frozen import dataclass
from kprobes.model.fetched import FAULT
from kprobes.model.layout import RECORD_HEADER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kprobes.model.layout import EventLayout, Field

    Read = Callable[[bytes, int, int, int, int], int | bytes]

_LINE = re.compile(
    r"\tfield:(?P<type>.*?) ?(?P<name>\w+)(?:\[\d*\])?;\toffset:(?P<offset>\d+);\tsize:(?P<size>\d+);", re.MULTILINE
)
_ID = re.compile(r"^ID: (\d+)$", re.MULTILINE)
_ELEMENT = re.compile(r"(?P<name>.+)\[(?P<index>\d+)\]\Z")
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
# Fields of ours that the kernel's records have under another name.
NAMES = {
    "_ip": "__probe_ip", "_func": "__probe_func", "_ret": "__probe_ret_ip", "_tid": "common_pid",
    "_flags": "common_flags", "_preempt": "common_preempt_count",
}  # fmt: skip
# What the record itself doesn't have.
TOLD = ("_time", "_cpu", "_pid", "_comm")


@dataclass(frozen=True, slots=True)
class TraceField:
    """A field of a kernel's event: *size* bytes at *offset*; *is_text*: the word that tells where a string lies."""

    name: str
    offset: int
    size: int
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """The *number* by which the kernel's records name their event, and its *fields*."""

    number: int
    fields: tuple[TraceField, ...]


def parse_format(text: str) -> TraceFormat:
    """Return what the text of a `format` file says.

    Raises:
        FormatError: it is no such file.
    """
    number = _ID.search(text)
    fields = tuple(
        TraceField(one["name"], int(one["offset"]), int(one["size"]), one["type"].startswith("__data_loc"))
        for one in _LINE.finditer(text)
    )
    if number is None or not fields:
        raise FormatError("the format file of an event is malformed")
    return TraceFormat(int(number[1]), fields)


class Converter:
    """Makes records of *layout* for the site *site* of the data of a kernel's event.

    Raises:
        FormatError: the event lacks a field of the layout.
    """

    __slots__ = ("_head", "_pack", "_steps")

    def __init__(self, layout: EventLayout, site: int, given: TraceFormat) -> None:
        known = {field.name: field for field in given.fields}
        self._steps = [_step(field, known) for field in layout.fields]
        self._head = (layout.id, site)
        self._pack = Struct(_packing(layout)).pack

    def record(self, data: bytes, start: int, told: Sequence[object]) -> bytes:
        """Return the record of the event whose data begin at *start*; *told* are the values of `TOLD`.

        A field that the data end before is 0.
        """
        values = []
        for read, offset, size, room in self._steps:
            if read is None:
                values.append(told[offset])
            else:
                values.append(read(data, start, offset, size, room))
        return self._pack(*self._head, *values)


def _unsigned(data: bytes, start: int, offset: int, size: int, room: int) -> int:
    return int.from_bytes(data[start + offset : start + offset + size], "little") & room


def _signed(data: bytes, start: int, offset: int, size: int, room: int) -> int:
    return int.from_bytes(data[start + offset : start + offset + size], "little", signed=True) & room


def _text(data: bytes, start: int, offset: int, size: int, room: int) -> bytes:
    word = int.from_bytes(data[start + offset : start + offset + size], "little")
    begin, length = start + (word & 0xFFFF), word >> 16
    return data[begin : begin + min(length, room)].partition(b"\0")[0] if length else FAULT


def _step(field: Field, known: Mapping[str, TraceField]) -> tuple[Read | None, int, int, int]:
    """Return how *field* is filled: what reads it, its offset, its size, and the room for it or the mask of it."""
    if field.name in TOLD:
        return None, TOLD.index(field.name), 0, 0
    found, offset = known.get(NAMES.get(field.name, field.name)), 0
    element = _ELEMENT.match(field.name)
    if found is None and element is not None:
        found = known.get(element["name"])
        offset = int(element["index"])
    if found is None:
        raise FormatError(f"the kernel's event has no field {field.name!r}")
    size = _size_of(found, field)
    if offset * size + size > found.size:
        raise FormatError(f"the kernel's event has no element {field.name!r}")
    place = found.offset + offset * size
    if found.is_text != (field.kind == "str"):
        raise FormatError(f"the field {field.name!r} of the kernel's event is of another type")
    if found.is_text:
        return _text, place, 4, field.size - 1
    return _signed if field.kind == "int" else _unsigned, place, size, (1 << 8 * field.size) - 1


def _size_of(found: TraceField, field: Field) -> int:
    """Return the size of one element of *found*: all that it has unless it is an array."""
    if found.is_text:
        return 4
    return field.size if _ELEMENT.match(field.name) else found.size


def _packing(layout: EventLayout) -> str:
    """Return the `struct` format of a whole record."""
    parts, position = ["<II"], RECORD_HEADER
    for field in layout.fields:
        code = f"{field.size}s" if field.kind == "str" else _CODES[field.size]
        parts.append(f"{field.offset - position}x{code}")
        position = field.offset + field.size
    return "".join(parts) + f"{layout.size - position}x"
