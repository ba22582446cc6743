"""Where functions begin and end, from the unwind tables: stripped files have these too.

Each entry of `.eh_frame` (an FDE) tells a range of code, and where it has one, the table of its landing pads: addresses
that unwinding enters without any branch leading there.

Source: Linux Standard Base 5.0, chapter 10 (Exception Frames); DWARF 4, 7.6; the Itanium C++ ABI for landing pads.
"""

from __future__ import annotations

import struct

from kprobes.errors import FormatError
from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.symbols.elf import ElfFile

SIZE_LIMIT = 256 << 20
PADS_LIMIT = 1 << 16

_OMITTED = 0xFF
_ABSOLUTE, _PC_RELATIVE, _DATA_RELATIVE = 0x00, 0x10, 0x30
_INDIRECT = 0x80
_FORMATS = {0x00: "<Q", 0x02: "<H", 0x03: "<I", 0x04: "<Q", 0x0A: "<h", 0x0B: "<i", 0x0C: "<q"}


@dataclass(frozen=True, slots=True)
class CodeRange:
    """Code from *start* to below *end*; *pads* is where the table of its landing pads lies, 0 without."""

    start: int
    end: int
    pads: int = 0


@dataclass(frozen=True, slots=True)
class FrameEntry:
    """The unwinding of *size* bytes of code from *start* on: the instructions of the CIE, then its own, and what they
    factor out. *of_signals*: it returns from signal handlers."""

    start: int
    size: int
    common_code: bytes
    code: bytes
    code_factor: int
    data_factor: int
    of_signals: bool


@dataclass(frozen=True, slots=True)
class _Common:
    """What entries share, from their CIE: how they tell *addresses* and landing *pads*, whether they have augmentation
    data, and whether they are *of_signals*: of code that returns from signal handlers. *code* are its instructions."""

    addresses: int
    pads: int
    augmented: bool
    of_signals: bool
    code_factor: int
    data_factor: int
    code: bytes = b""


class Reader:
    """Reads encoded values from *data*, whose first byte lies at *address*.

    Raises:
        FormatError: by each method, at the end of the data or for an unknown encoding.
    """

    def __init__(self, data: bytes, address: int, at: int = 0) -> None:
        self.data = data
        self.address = address
        self.at = at

    def fixed(self, layout: str) -> int:
        """Return one integer of the `struct` format *layout*."""
        try:
            (value,) = struct.unpack_from(layout, self.data, self.at)
        except struct.error:
            raise FormatError("an unwind table is cut off") from None
        self.at += struct.calcsize(layout)
        return int(value)

    def uleb(self) -> int:
        """Return an unsigned LEB128."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.fixed("<B")
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise FormatError("a number in an unwind table has no end")

    def sleb(self) -> int:
        """Return a signed LEB128."""
        start = self.at
        value = self.uleb()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) else value

    def encoded(self, encoding: int, base: int = 0) -> int:
        """Return a pointer in *encoding*; 0 stays 0 whatever it is relative to."""
        here = self.address + self.at
        form = encoding & 0x0F
        if form == 0x01:
            value = self.uleb()
        elif form == 0x09:
            value = self.sleb()
        elif form in _FORMATS:
            value = self.fixed(_FORMATS[form])
        else:
            raise FormatError(f"an unwind table has pointers of an unknown encoding: {encoding:#x}")
        relative = encoding & 0x70
        if value and relative == _PC_RELATIVE:
            value += here
        elif value and relative == _DATA_RELATIVE:
            value += base
        return value & 0xFFFFFFFFFFFFFFFF


def code_ranges(elf: ElfFile) -> list[CodeRange]:
    """Return the ranges of code that the unwind tables of *elf* tell of, in ascending order; none without tables.

    Raises:
        FormatError: the tables are malformed.
    """
    section = elf.section(".eh_frame")
    if section is None or section.size > SIZE_LIMIT:
        return []
    found = {r.start: r for r in parse_eh_frame(elf.section_data(section), section.address) if elf.is_code(r.start)}
    return [found[start] for start in sorted(found)]


def frame_entries(elf: ElfFile) -> Iterator[FrameEntry]:
    """Yield the entries of the unwind tables of *elf*; none without tables.

    Raises:
        FormatError: the tables are malformed.
    """
    section = elf.section(".eh_frame")
    if section is None or section.size > SIZE_LIMIT:
        return
    data = elf.section_data(section)
    for reader, common, end in _entries(data, section.address):
        start = reader.encoded(common.addresses & ~_INDIRECT)
        size = reader.encoded(common.addresses & 0x0F)
        if common.augmented:
            more = reader.uleb()
            reader.at += more
        code = data[reader.at : end]
        if start and size and elf.is_code(start):
            factors = common.code_factor, common.data_factor
            yield FrameEntry(start, size, common.code, code, *factors, common.of_signals)


def parse_eh_frame(data: bytes, address: int) -> Iterator[CodeRange]:
    """Return the ranges in the section *data* that lies at *address*."""
    for reader, common, _ in _entries(data, address):
        found = _parse_entry(reader, common)
        if found is not None:
            yield found


def _entries(data: bytes, address: int) -> Iterator[tuple[Reader, _Common, int]]:
    """Yield a reader at the begin of each FDE, with its CIE and where it ends."""
    commons: dict[int, _Common] = {}
    at = 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        if length == 0:
            at += 4
            continue
        body = at + 4
        if length == 0xFFFFFFFF:
            raise FormatError("an unwind table has 64-bit lengths")
        reader = Reader(data, address, body)
        back = reader.fixed("<I")
        end = body + length
        if back:
            common = body - back
            if common < 0:
                raise FormatError("an entry of an unwind table refers to a CIE before it")
            if common not in commons:
                commons[common] = _parse_common(Reader(data, address, common + 4), common)
            yield reader, commons[common], end
        at = end


def _parse_common(reader: Reader, begin: int) -> _Common:
    length = Reader(reader.data, reader.address, begin).fixed("<I")
    if reader.fixed("<I") != 0:
        raise FormatError("an entry of an unwind table refers to what is no CIE")
    version = reader.fixed("<B")
    end = reader.data.find(b"\0", reader.at, reader.at + 32)
    if end < 0:
        raise FormatError("a CIE of an unwind table has no end")
    augmentation, reader.at = reader.data[reader.at : end], end + 1
    if augmentation.startswith(b"eh"):
        raise FormatError("the unwind table is of GCC 2")
    code_factor, data_factor = reader.uleb(), reader.sleb()
    reader.fixed("<B") if version == 1 else reader.uleb()
    addresses, pads = _ABSOLUTE, _OMITTED
    code_at = reader.at
    if augmentation.startswith(b"z"):
        size = reader.uleb()
        code_at = reader.at + size
        for letter in augmentation[1:]:
            if letter == ord("R"):
                addresses = reader.fixed("<B")
            elif letter == ord("L"):
                pads = reader.fixed("<B")
            elif letter == ord("P"):
                reader.encoded(reader.fixed("<B"))
    code = reader.data[code_at : begin + 4 + length]
    augmented, of_signals = augmentation.startswith(b"z"), b"S" in augmentation
    return _Common(addresses, pads, augmented, of_signals, code_factor, data_factor, code)


def _parse_entry(reader: Reader, common: _Common) -> CodeRange | None:
    start = reader.encoded(common.addresses & ~_INDIRECT)
    length = reader.encoded(common.addresses & 0x0F)
    table = 0
    if common.augmented:
        size = reader.uleb()
        if size and common.pads != _OMITTED:
            table = reader.encoded(common.pads & ~_INDIRECT)
    end = start + length
    # What returns from signal handlers is entered without a call; so that unwinders which look for the call before
    # find it all the same, its range begins a byte early, in the padding (glibc's __restore_rt).
    begin = start + 1 if common.of_signals else start
    return CodeRange(begin, end, table) if start and begin < end else None


def landing_pads(elf: ElfFile, ranges: list[CodeRange]) -> list[int]:
    """Return the addresses in *ranges* that unwinding enters, in ascending order.

    Raises:
        FormatError: a table is malformed.
    """
    section = elf.section(".gcc_except_table")
    if section is None or section.size > SIZE_LIMIT:
        return []
    data = elf.section_data(section)
    found: set[int] = set()
    for one in ranges:
        if section.address <= one.pads < section.address + len(data):
            found.update(_pads_of(Reader(data, section.address, one.pads - section.address), one))
    return sorted(pad for pad in found if elf.is_code(pad))


def _pads_of(reader: Reader, code: CodeRange) -> Iterator[int]:
    encoding = reader.fixed("<B")
    base = code.start if encoding == _OMITTED else reader.encoded(encoding)
    if reader.fixed("<B") != _OMITTED:
        reader.uleb()
    form = reader.fixed("<B")
    end = reader.uleb() + reader.at
    for _ in range(PADS_LIMIT):
        if reader.at >= end:
            return
        reader.encoded(form & 0x0F)
        reader.encoded(form & 0x0F)
        pad = reader.encoded(form & 0x0F)
        reader.uleb()
        if pad:
            yield base + pad
