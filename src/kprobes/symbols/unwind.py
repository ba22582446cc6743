"""How to get from a frame to its caller's, for every instruction of a file: `.eh_frame` boiled down to a sorted table.

A row holds from its address on, up to the next one's: 8 bytes, little-endian,

    u32 file offset
    u16 where the frame begins (the CFA): offset / 8 above the stack pointer, twice, plus 1 if above rbp instead;
        or one of STOP (the outermost frame), SIGNAL (a signal handler returns here), UNKNOWN
    i16 where the caller's rbp is kept, counted from the CFA in words; 0 if it is still in rbp

The return address lies below the CFA always. What a row can't say (frames found by other registers, by expressions) is
UNKNOWN. That suffices for what compilers make of C, C++ and Rust.

Source: DWARF 5, 6.4 (call frame information); System V ABI, AMD64 supplement, 3.6.2 (register numbers).
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING

from kprobes.errors import FormatError
from kprobes.model.shared import UNWIND_SIGNAL, UNWIND_STOP, UNWIND_UNKNOWN
from kprobes.symbols.cache import read_cached, write_cached
from kprobes.symbols.eh_frame import Reader, frame_entries
from kprobes.symbols.elf import ElfFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kprobes.symbols.eh_frame import FrameEntry

_VERSION = 1
_HEADER = struct.Struct("<IIQ")  # version, CRC-32 of the rows, their number
_RBP, _RSP, _RETURN = 6, 7, 16
_LARGEST = 0x7FF0 * 8


class _Run:
    """Runs the instructions of one entry; `rows` gathers (address, rule)."""

    def __init__(self, entry: FrameEntry) -> None:
        self.entry = entry
        self.at = entry.start
        self.rows: list[tuple[int, int]] = []
        self.register, self.offset, self.kept = _RSP, 8, 0
        self.stops, self.known = False, True
        self.first: tuple[int, int, int, bool, bool] = self.state()
        self.stack: list[tuple[int, int, int, bool, bool]] = []

    def state(self) -> tuple[int, int, int, bool, bool]:
        return self.register, self.offset, self.kept, self.stops, self.known

    def restore(self, state: tuple[int, int, int, bool, bool]) -> None:
        self.register, self.offset, self.kept, self.stops, self.known = state

    def packed(self) -> int:
        """Return the rule as the upper 32 bits of a row."""
        if self.entry.of_signals:
            return UNWIND_SIGNAL
        if self.stops:
            return UNWIND_STOP
        fits = self.register in (_RSP, _RBP) and 0 <= self.offset <= _LARGEST and not self.offset % 8
        if not (self.known and fits and -_LARGEST <= self.kept <= _LARGEST and not self.kept % 8):
            return UNWIND_UNKNOWN
        return self.offset // 8 << 1 | (self.register == _RBP) | (self.kept // 8 & 0xFFFF) << 16

    def advance(self, distance: int) -> None:
        self.rows.append((self.at, self.packed()))
        self.at += distance

    def set_register(self, number: int, offset: int | None) -> None:
        """Note that register *number* is kept *offset* bytes from the CFA; None: it can't be told."""
        if number == _RBP:
            self.known &= offset is not None
            self.kept = offset or 0
        elif number == _RETURN and offset != -8:
            self.known = False

    def run(self) -> list[tuple[int, int]]:
        """Return the rows of the entry, the last one ending it."""
        self._carry_out(self.entry.common_code)
        self.first = self.state()
        self._carry_out(self.entry.code)
        self.rows.append((self.at, self.packed()))
        return self.rows

    def _carry_out(self, code: bytes) -> None:
        reader, entry = Reader(code, 0), self.entry
        while reader.at < len(code):
            byte = code[reader.at]
            reader.at += 1
            kind, low = byte & 0xC0, byte & 0x3F
            if kind == 0x40:
                self.advance(low * entry.code_factor)
            elif kind == 0x80:
                self.set_register(low, reader.uleb() * entry.data_factor)
            elif kind == 0xC0:
                self.restore_register(low)
            elif low in _OTHERS:
                _OTHERS[low](self, reader)
            else:
                raise FormatError(f"an unwind table has the unknown instruction {byte:#x}")

    def restore_register(self, number: int) -> None:
        """Let a register be where it was at the function's entry."""
        if number == _RBP:
            self.kept = self.first[2]

    def define(self, register: int | None = None, offset: int | None = None) -> None:
        """Set where the CFA is."""
        self.register = self.register if register is None else register
        self.offset = self.offset if offset is None else offset

    def lose(self, reader: Reader) -> None:
        """Give up: the CFA comes by an expression."""
        size = reader.uleb()
        reader.at += size
        self.known = False

    def skip_expression(self, reader: Reader) -> None:
        """Note a register that is kept by an expression."""
        number = reader.uleb()
        size = reader.uleb()
        reader.at += size
        self.set_register(number, None)

    def lose_register(self, number: int, _where: int) -> None:
        """Note a register that is kept where no row can say."""
        self.set_register(number, None)

    def undefine(self, number: int) -> None:
        """Without a return address there is no caller."""
        self.stops |= number == _RETURN

    def same(self, number: int) -> None:
        """A register is untouched."""
        if number == _RBP:
            self.kept = 0

    def recall(self) -> None:
        """Return to the remembered state."""
        if not self.stack:
            raise FormatError("an unwind table restores what it never kept")
        self.restore(self.stack.pop())


def _factor(run: _Run) -> int:
    return run.entry.data_factor


_OTHERS: dict[int, Callable[[_Run, Reader], object]] = {
    0x00: lambda _run, _reader: None,
    0x02: lambda run, reader: run.advance(reader.fixed("<B") * run.entry.code_factor),
    0x03: lambda run, reader: run.advance(reader.fixed("<H") * run.entry.code_factor),
    0x04: lambda run, reader: run.advance(reader.fixed("<I") * run.entry.code_factor),
    0x05: lambda run, reader: run.set_register(reader.uleb(), reader.uleb() * _factor(run)),
    0x06: lambda run, reader: run.restore_register(reader.uleb()),
    0x07: lambda run, reader: run.undefine(reader.uleb()),
    0x08: lambda run, reader: run.same(reader.uleb()),
    0x09: lambda run, reader: run.lose_register(reader.uleb(), reader.uleb()),
    0x0A: lambda run, _reader: run.stack.append(run.state()),
    0x0B: lambda run, _reader: run.recall(),
    0x0C: lambda run, reader: run.define(reader.uleb(), reader.uleb()),
    0x0D: lambda run, reader: run.define(register=reader.uleb()),
    0x0E: lambda run, reader: run.define(offset=reader.uleb()),
    0x0F: lambda run, reader: run.lose(reader),
    0x10: lambda run, reader: run.skip_expression(reader),
    0x11: lambda run, reader: run.set_register(reader.uleb(), reader.sleb() * _factor(run)),
    0x12: lambda run, reader: run.define(reader.uleb(), reader.sleb() * _factor(run)),
    0x13: lambda run, reader: run.define(offset=reader.sleb() * _factor(run)),
    0x14: lambda run, reader: run.lose_register(reader.uleb(), reader.uleb()),
    0x15: lambda run, reader: run.lose_register(reader.uleb(), reader.sleb()),
    0x16: lambda run, reader: run.skip_expression(reader),
    0x2E: lambda _run, reader: reader.uleb(),
    0x2F: lambda run, reader: run.set_register(reader.uleb(), -reader.uleb() * _factor(run)),
}


def unwind_rows(path: str) -> bytes:
    """Return the rows of the file *path*, kept on disk by build-id; none for a file without unwind tables.

    Raises:
        FormatError: the file can't be read or is malformed.
    """
    with ElfFile(path) as elf:
        name = f"unwind-{elf.build_id}-{elf.size:x}" if elf.build_id.isalnum() else ""
        kept = _parse_kept(read_cached(name)) if name else None
        if kept is None:
            kept = _gather(elf)
            if name:
                from zlib import crc32

                write_cached(name, (_HEADER.pack(_VERSION, crc32(kept), len(kept) // 8), kept))
    return kept


def _parse_kept(data: bytes | None) -> bytes | None:
    from zlib import crc32

    if data is None or len(data) < _HEADER.size:
        return None
    version, checksum, count = _HEADER.unpack_from(data)
    rows = data[_HEADER.size :]
    return rows if (version, 8 * count, checksum) == (_VERSION, len(rows), crc32(rows)) else None


def _gather(elf: ElfFile) -> bytes:
    found: dict[int, int] = {}
    ends = []
    for entry in frame_entries(elf):
        end = entry.start + entry.size
        try:
            rows = _Run(entry).run()
        except FormatError:
            rows = [(entry.start, UNWIND_UNKNOWN)]
        found.update((at, rule) for at, rule in rows if at < end)
        ends.append(end)
    for end in ends:
        found.setdefault(end, UNWIND_UNKNOWN)
    return array("Q", _offset_rows(elf, found)).tobytes()


def _offset_rows(elf: ElfFile, found: dict[int, int]) -> Iterator[int]:
    """Yield the rows by file offset, leaving out those that say what the one before them does."""
    code = [(s.address, s.address + s.file_size, s.offset - s.address) for s in elf.loads if s.flags & 1]
    last = -1
    for address in sorted(found):
        shift = next((by for low, high, by in code if low <= address <= high), None)
        if shift is None or found[address] == last or not 0 <= address + shift < 1 << 32:
            continue
        last = found[address]
        yield address + shift | last << 32
