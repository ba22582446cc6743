"""Sections of one file with debugging information, read when asked for and unpacked where they are compressed."""

from __future__ import annotations

import os
import struct
import zlib

from kprobes.errors import FormatError
from kprobes.symbols.elf import SHT_NOBITS, ElfFile

SHF_COMPRESSED = 0x800
_HEADER = struct.Struct("<IIQQ")  # ElfChdr: type, reserved, size, alignment
ZLIB, ZSTD = 1, 2
# What one section may take; those of a web browser take more, and are refused.
SECTION_LIMIT = 1 << 30


class Sections:
    """The sections of the file *path*. Holds no file open; one that has changed since is refused.

    Raises:
        FormatError: the file can't be read, or is no ELF file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with ElfFile(path) as elf:
            self._identity = _identity(path)
            self._sections = {one.name: one for one in reversed(elf.sections)}
            self.code = elf.code
        self._data: dict[str, bytes] = {}

    def data(self, name: str) -> bytes:
        """Return the bytes of the section *name*, none where the file has no such section.

        Raises:
            FormatError: it is too large, malformed, or compressed in a way that can't be unpacked here.
        """
        if name not in self._data:
            self._data[name] = self._read(name)
        return self._data[name]

    def _read(self, name: str) -> bytes:
        found = self._sections.get(name)
        if found is None or found.type == SHT_NOBITS or not found.size:
            return b""
        if found.size > SECTION_LIMIT:
            raise FormatError(f"{self.path}: the section {name} is larger than {SECTION_LIMIT >> 20} MiB")
        with ElfFile(self.path) as elf:
            if _identity(self.path) != self._identity:
                raise FormatError(f"{self.path} has changed while it was read")
            data = elf.section_data(found)
        return self._unpacked(name, data) if found.flags & SHF_COMPRESSED else data

    def _unpacked(self, name: str, data: bytes) -> bytes:
        if len(data) < _HEADER.size:
            raise FormatError(f"{self.path}: the compressed section {name} is cut short")
        kind, _, size, _ = _HEADER.unpack_from(data)
        if size > SECTION_LIMIT:
            raise FormatError(f"{self.path}: the section {name} is larger than {SECTION_LIMIT >> 20} MiB")
        packed = memoryview(data)[_HEADER.size :]
        if kind == ZSTD:
            raise FormatError(
                f"{self.path}: the section {name} is compressed by zstd, which can't be unpacked here",
                hint=f"unpack it: objcopy --decompress-debug-sections {self.path}",
            )
        if kind != ZLIB:
            raise FormatError(f"{self.path}: the section {name} is compressed in an unknown way ({kind})")
        try:
            found = zlib.decompressobj().decompress(packed, size)
        except zlib.error as problem:
            raise FormatError(f"{self.path}: the section {name} can't be unpacked: {problem}") from None
        if len(found) != size:
            raise FormatError(f"{self.path}: the section {name} is cut short")
        return found


def _identity(path: str) -> tuple[int, int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError as problem:
        raise FormatError(f"{path} can't be read: {problem.strerror}") from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
