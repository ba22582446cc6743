"""ELF files: header, segments, sections, build-id, and where code lies in file and memory.

Files are read with pread, piece by piece, never mapped: one that its owner cuts short while we look would kill us with
SIGBUS. Only 64-bit little-endian files are read; sizes and counts in a file are hints that are checked.

Source: System V ABI, chapters 4 and 5; /usr/include/elf.h.
"""

from __future__ import annotations

import os
import struct
from functools import cached_property

from kprobes.errors import FormatError
from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_NOTE = struct.Struct("<III")

SECTION_LIMIT = 1 << 16
READ_LIMIT = 1 << 30
NOTE_LIMIT = 1 << 16
STRINGS_LIMIT = 64 << 20

ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
PF_X = 1
SHT_SYMTAB, SHT_NOBITS, SHT_DYNSYM, SHT_VERSIONS = 2, 8, 11, 0x6FFFFFFF
NT_GNU_BUILD_ID = 3
DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_SONAME, DT_RPATH, DT_RUNPATH = 1, 5, 10, 14, 15, 29
DT_FLAGS_1, DF_1_PIE = 0x6FFFFFFB, 0x08000000
MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64", 21: "ppc64", 22: "s390x"}


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header: *file_size* bytes at *offset* lie at *address*, *memory_size* bytes in all."""

    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int


@dataclass(frozen=True, slots=True)
class Section:
    """A section header; *link* is the number of a section that belongs to it (the strings of a symbol table)."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int


class ElfFile:
    """An open ELF file; a context manager.

    Raises:
        FormatError: the file can't be read, or isn't a 64-bit little-endian ELF file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else str(problem)
            raise FormatError(f"{path} can't be read: {reason}") from None
        try:
            self.size = os.fstat(self._descriptor).st_size
            self._read_header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ElfFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """Return *size* bytes at the file offset *offset*.

        Raises:
            FormatError: they lie beyond the end of the file.
        """
        if offset + size > self.size or size > READ_LIMIT:
            raise FormatError(f"{self.path}: {size} bytes at {offset:#x} lie beyond the end")
        pieces = []
        while size:
            try:
                piece = os.pread(self._descriptor, size, offset)
            except OSError as problem:
                raise FormatError(f"{self.path} can't be read: {problem.strerror}") from None
            if not piece:
                raise FormatError(f"{self.path} was cut short while it was read")
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_header(self) -> None:
        if self.size < _HEADER.size:
            raise FormatError(f"{self.path} is no ELF file")
        fields = _HEADER.unpack(self.read(0, _HEADER.size))
        identity = fields[0]
        if identity[:4] != b"\x7fELF":
            raise FormatError(f"{self.path} is no ELF file")
        if identity[4:6] != b"\x02\x01":
            width = "32-bit" if identity[4] == 1 else "big-endian"
            raise FormatError(f"{self.path} is a {width} program", hint="only 64-bit little-endian ones are supported")
        self.type: int = fields[1]
        self.machine: str = MACHINES.get(fields[2], str(fields[2]))
        self.entry: int = fields[4]
        segments_at, self._sections_at = fields[5], fields[6]
        segment_size, segment_count, self._section_size, self._section_count, self._names_index = fields[9:14]
        if segment_count and segment_size != _SEGMENT.size:
            raise FormatError(f"{self.path}: program headers of {segment_size} bytes")
        table = self.read(segments_at, segment_count * segment_size)
        self.segments = tuple(Segment(k, f, o, a, fs, ms) for k, f, o, a, _, fs, ms, _ in _SEGMENT.iter_unpack(table))

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """Return the section headers; none where they were stripped."""
        if not self._sections_at:
            return ()
        if self._section_size != _SECTION.size:
            raise FormatError(f"{self.path}: section headers of {self._section_size} bytes")
        count, names_index = self._section_count, self._names_index
        if count == 0 or names_index == 0xFFFF:
            first = _SECTION.unpack(self.read(self._sections_at, _SECTION.size))
            count, names_index = count or first[5], first[6] if names_index == 0xFFFF else names_index
        if count > SECTION_LIMIT:
            raise FormatError(f"{self.path} claims to have {count} sections")
        raw = list(_SECTION.iter_unpack(self.read(self._sections_at, count * _SECTION.size)))
        names = self.read(raw[names_index][4], raw[names_index][5]) if names_index < len(raw) else b""
        return tuple(Section(_string(names, r[0]), r[1], r[2], r[3], r[4], r[5], r[6]) for r in raw)

    def section(self, name: str) -> Section | None:
        """Return the section *name*, or None."""
        return next((section for section in self.sections if section.name == name), None)

    def section_data(self, section: Section) -> bytes:
        """Return the bytes of *section* (none for one that takes no room in the file)."""
        return b"" if section.type == SHT_NOBITS else self.read(section.offset, section.size)

    @cached_property
    def loads(self) -> tuple[Segment, ...]:
        """Return the segments that are mapped."""
        return tuple(segment for segment in self.segments if segment.type == PT_LOAD)

    @cached_property
    def code(self) -> tuple[tuple[int, int], ...]:
        """Return the (start, end) addresses of what is mapped executable."""
        return tuple((s.address, s.address + s.file_size) for s in self.loads if s.flags & PF_X)

    @cached_property
    def kind(self) -> str:
        """Return what the file is: `exec` (fixed addresses), `pie`, `static-pie` or `shared`; `other` for the rest."""
        if self.type == ET_EXEC:
            return "exec"
        if self.type != ET_DYN:
            return "other"
        tags = dict(self._dynamic)
        interpreted = any(segment.type == PT_INTERP for segment in self.segments)
        # Before binutils 2.26 nothing marked a PIE; libc.so.6 has an interpreter too, but a name of its own.
        if tags.get(DT_FLAGS_1, 0) & DF_1_PIE or (interpreted and DT_SONAME not in tags):
            return "pie" if interpreted else "static-pie"
        return "shared"

    @property
    def needed(self) -> list[str]:
        """Return the names of the libraries it is linked with (DT_NEEDED)."""
        return self._dynamic_strings(DT_NEEDED)

    @property
    def search_path(self) -> list[str]:
        """Return the directories where it has its libraries looked up first (DT_RUNPATH or DT_RPATH), as written."""
        texts = self._dynamic_strings(DT_RUNPATH) or self._dynamic_strings(DT_RPATH)
        return [directory for text in texts for directory in text.split(":") if directory]

    @cached_property
    def _dynamic(self) -> tuple[tuple[int, int], ...]:
        for segment in self.segments:
            if segment.type == PT_DYNAMIC:
                data = self.read(segment.offset, min(segment.file_size, NOTE_LIMIT) & ~15)
                return tuple((tag, value) for tag, value in struct.iter_unpack("<QQ", data))
        return ()

    def _dynamic_strings(self, wanted: int) -> list[str]:
        tags = dict(self._dynamic)
        start = self.offset_of(tags.get(DT_STRTAB, 0))
        if start is None or tags.get(DT_STRSZ, 0) > STRINGS_LIMIT:
            return []
        strings = self.read(start, tags.get(DT_STRSZ, 0))
        return [_string(strings, value) for tag, value in self._dynamic if tag == wanted]

    @cached_property
    def build_id(self) -> str:
        """Return the build-id in hex, empty where there is none."""
        for segment in self.segments:
            if segment.type == PT_NOTE:
                data = self.read(segment.offset, min(segment.file_size, NOTE_LIMIT))
                for kind, owner, content in parse_notes(data):
                    if kind == NT_GNU_BUILD_ID and owner == b"GNU":
                        return content.hex()
        return ""

    def is_code(self, address: int) -> bool:
        """Return whether *address* lies in what is mapped executable."""
        return any(low <= address < high for low, high in self.code)

    def offset_of(self, address: int) -> int | None:
        """Return the file offset of *address*, None where the file holds nothing of it."""
        for segment in self.loads:
            if segment.address <= address < segment.address + segment.file_size:
                return address - segment.address + segment.offset
        return None

    def address_of(self, offset: int) -> int | None:
        """Return the address of the file offset *offset*, that of code where several segments hold it; or None."""
        held = [s for s in self.loads if s.offset <= offset < s.offset + s.file_size]
        held.sort(key=lambda segment: not segment.flags & PF_X)
        return offset - held[0].offset + held[0].address if held else None


def parse_notes(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Return (type, owner, content) of each note; what is cut off at the end is left out."""
    at = 0
    while at + _NOTE.size <= len(data):
        owner_size, content_size, kind = _NOTE.unpack_from(data, at)
        owner_at = at + _NOTE.size
        content_at = owner_at + (owner_size + 3 & ~3)
        at = content_at + (content_size + 3 & ~3)
        if content_at + content_size > len(data):
            return
        yield kind, data[owner_at : owner_at + owner_size].rstrip(b"\0"), data[content_at : content_at + content_size]


def _string(names: bytes, at: int) -> str:
    end = names.find(b"\0", at)
    return names[at : end if end >= 0 else len(names)].decode("utf-8", "backslashreplace")
