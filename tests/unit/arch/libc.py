"""The machine's own libc.so.6 as a specimen: its code, and the extents of its functions from the unwind tables.

A stripped library has no symbols for most of its functions, but every one has an entry in .eh_frame.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kprobes.arch.x86_64.image import Image

SLIDE = 0x7F12_3400_0000


@dataclass(frozen=True)
class Specimen:
    raw: bytes
    segments: tuple[tuple[int, int, int, bool], ...]  # address, offset, size, executable
    sections: dict[str, tuple[int, int, int]]  # address, offset, size

    def read(self, address: int, size: int) -> bytes:
        for start, offset, length, _ in self.segments:
            if start <= address < start + length:
                return self.raw[offset + address - start : offset + min(address - start + size, length)]
        return b""


def load(path: str) -> Specimen:
    raw = Path(path).read_bytes()
    header_at, section_at = struct.unpack_from("<QQ", raw, 32)
    headers, sections, names_at = (struct.unpack_from("<H", raw, place)[0] for place in (56, 60, 62))
    segments = []
    for number in range(headers):
        kind, flags, offset, address, _, size, _, _ = struct.unpack_from("<IIQQQQQQ", raw, header_at + 56 * number)
        if kind == 1:
            segments.append((address, offset, size, bool(flags & 1)))
    table = [struct.unpack_from("<IIQQQQIIQQ", raw, section_at + 64 * number) for number in range(sections)]
    names = table[names_at][4]
    by_name = {raw[names + row[0] : raw.index(b"\0", names + row[0])].decode(): row[3:6] for row in table}
    return Specimen(raw, tuple(segments), by_name)


def functions(specimen: Specimen) -> list[tuple[int, int]]:
    """Return (start, end) of each function, by the sorted table of .eh_frame_hdr (pc-relative 4-byte entries)."""
    address, offset, _ = specimen.sections[".eh_frame_hdr"]
    assert specimen.raw[offset : offset + 4] == b"\x01\x1b\x03\x3b"
    count = struct.unpack_from("<I", specimen.raw, offset + 8)[0]
    found = []
    for start, entry in struct.iter_unpack("<ii", specimen.raw[offset + 12 : offset + 12 + 8 * count]):
        place = specimen.sections[".eh_frame"][1] + (address + entry - specimen.sections[".eh_frame"][0])
        length = struct.unpack_from("<I", specimen.raw, place + 12)[0]
        found.append((address + start, address + start + length))
    return found


def path() -> str:
    ctypes.CDLL("libc.so.6")
    return next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so.6" in line)


@cache
def image() -> tuple[Image, Specimen]:
    """Return libc as it could lie in a process, and the file."""
    specimen = load(path())
    base, offset, size, _ = next(segment for segment in specimen.segments if segment[3])
    extents = [(start + SLIDE, end + SLIDE) for start, end in functions(specimen) if base <= start < base + size]

    def read(address: int, count: int) -> bytes:
        return specimen.read(address - SLIDE, count)

    return Image(base + SLIDE, specimen.raw[offset : offset + size], extents, read=read), specimen
