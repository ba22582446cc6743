"""Nodes about byte buffers: strings that are read, compared, cut and put together."""

from __future__ import annotations

from kprobes.compiler.ir.values import Operand, Place, Slot, Value
from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class ReadText:
    """Read the NUL-terminated string at *address* + *offset* into a byte buffer, cut to its size with the NUL.

    *failed* (bool), where given, tells whether that failed.
    """

    place: Place
    slot: Slot
    address: Value
    offset: int = 0
    space: str = "kernel"
    failed: Value | None = None


@dataclass(frozen=True, slots=True)
class ReadBytes:
    """Copy exactly the slot's size of bytes from *address* + *offset*."""

    place: Place
    slot: Slot
    address: Value
    offset: int = 0
    space: str = "kernel"


@dataclass(frozen=True, slots=True)
class RecordText:
    """Read a `__data_loc` string of a tracepoint's record: the u32 at *offset* says where it is (low half: offset,
    high: size). With *size* > 0 there is no such u32: the record holds a char array of *size* bytes at *offset*."""

    place: Place
    slot: Slot
    offset: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class ConstText:
    """Fill a byte buffer with *text*, which is shorter than it."""

    place: Place
    slot: Slot
    text: bytes


@dataclass(frozen=True, slots=True)
class CopyText:
    """Copy one byte buffer to another, cut to the target's size with the NUL."""

    place: Place
    slot: Slot
    source: Slot


@dataclass(frozen=True, slots=True)
class BuiltinText:
    """Fill a byte buffer by a builtin: `comm`."""

    place: Place
    slot: Slot
    name: str


@dataclass(frozen=True, slots=True)
class CompareText:
    """`to` (bool) = the string in *slot* equals *text* (*prefix*: begins with it); *text* fits the buffer."""

    place: Place
    to: Value
    slot: Slot
    text: bytes
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class CompareTexts:
    """`to` (bool) = both buffers hold the same string."""

    place: Place
    to: Value
    left: Slot
    right: Slot


@dataclass(frozen=True, slots=True)
class FindText:
    """`to` (bool) = *text*, which is not empty, lies somewhere in the string in *slot* (*at_end*: ends it)."""

    place: Place
    to: Value
    slot: Slot
    text: bytes
    at_end: bool = False


@dataclass(frozen=True, slots=True)
class MatchText:
    """`to` (bool) = the string in *slot* matches *elements*: each stands for one of its bytes, an empty one for any
    number of any bytes. There are at most 62 that aren't empty."""

    place: Place
    to: Value
    slot: Slot
    elements: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TextLength:
    """`to` (i64) = the bytes of the string in *slot*, without the NUL."""

    place: Place
    to: Value
    slot: Slot


@dataclass(frozen=True, slots=True)
class CutText:
    """Fill *slot* with the *length* bytes of the string in *source* from number *start* on (both u64), as far as there
    are any and cut to its size; *source* is another buffer."""

    place: Place
    slot: Slot
    source: Slot
    start: Value
    length: Value


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a formatted string: *text* as it stands, then the next operand where *takes* is set.

    A string operand is put there whole. An integer (i64 or u64) is written in *base* 10 or 16, *prefix* between its
    sign and its digits, of which there are at least *least* (zeros are put before; a minus counts as one of them) and
    at most *most*.
    """

    text: bytes = b""
    takes: bool = False
    base: int = 10
    prefix: bytes = b""
    least: int = 1
    most: int = 20
    upper: bool = False


@dataclass(frozen=True, slots=True)
class FormatText:
    """Fill *slot* with *pieces* one after the other; all that they can come to has room in it."""

    place: Place
    slot: Slot
    pieces: tuple[Piece, ...]
    operands: tuple[Operand, ...]
