"""Reads LLVM's BPF object file: code, relocations and line numbers, and gives programs their BTF.

LLVM's own BTF is used for its line table only. Its line texts would come from a source file on disk, which a handler
need not have, so the blob that the kernel gets is written anew (see `btf`).

Source: ELF-64 object file format; Documentation/bpf/llvm_reloc.rst; Documentation/bpf/btf.rst (4.2).
"""

from __future__ import annotations

import struct

from kprobes.compiler.back.btf import BtfText
from kprobes.errors import CompileError, InternalError
from kprobes.frozen import dataclass
from kprobes.model.plan import Program, Relocation, SourceLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kprobes.compiler.ir.nodes import Handler

_R_BPF_64_64 = 1
_SHT_SYMTAB, _SHT_REL = 2, 9
_LD_IMM64 = 0x18
_LOAD, _STORE_IMMEDIATE, _STORE = 1, 2, 3
_MOVE, _ADD, _FRAME, _STACK = 0xBF, 0x07, 10, 512
# The kernel keeps a line in 22 bits and a column in 10.
_MAX_COLUMN = (1 << 10) - 1


class TooMuchError(CompileError):
    """A handler *needs* more than BPF has."""

    def __init__(self, handler: Handler, needs: str) -> None:
        line = min(handler.lines, default=0)
        super().__init__(
            f"{handler.name} needs {needs}",
            hint="keep fewer values and shorter strings, loop where statements repeat, or split the handler",
            place=(handler.file, line, 0),
            source=handler.lines.get(line, ""),
        )


class StackError(TooMuchError):
    """A program needs more stack than BPF has."""


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    offset: int
    size: int
    link: int
    info: int


class ObjectFile:
    """An ELF-64 little-endian relocatable file, as LLVM writes it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        (start,) = struct.unpack_from("<Q", content, 0x28)
        size, count, names = struct.unpack_from("<HHH", content, 0x3A)
        raw = [struct.unpack_from("<IIQQQQIIQQ", content, start + size * index) for index in range(count)]
        strings = raw[names][4]
        self._sections = [_Section(self._text(strings + r[0]), r[1], r[4], r[5], r[6], r[7]) for r in raw]

    def _text(self, offset: int) -> str:
        return self._content[offset : self._content.index(b"\0", offset)].decode()

    def _bytes(self, section: _Section) -> bytes:
        return self._content[section.offset : section.offset + section.size]

    def find(self, name: str) -> int:
        """Return the index of the section *name*, -1 where there is none."""
        return next((index for index, section in enumerate(self._sections) if section.name == name), -1)

    def section(self, name: str) -> bytes:
        """Return the bytes of the section *name*, empty where there is none."""
        index = self.find(name)
        return self._bytes(self._sections[index]) if index >= 0 else b""

    def relocations(self, name: str) -> list[tuple[int, int, str]]:
        """Return (offset, type, symbol name) of the relocations in the section *name*."""
        index = self.find(name)
        found = []
        for section in self._sections:
            if section.kind == _SHT_REL and section.info == index:
                symbols = self._sections[section.link]
                strings = self._sections[symbols.link].offset
                for offset, info in struct.iter_unpack("<QQ", self._bytes(section)):
                    (at,) = struct.unpack_from("<I", self._content, symbols.offset + 24 * (info >> 32))
                    found.append((offset, info & 0xFFFFFFFF, self._text(strings + at)))
        return found

    def lines(self) -> dict[str, list[tuple[int, int, int]]]:
        """Return (instruction index, line, column), both from 1, of each code section, from `.BTF.ext`."""
        extra, btf = self.section(".BTF.ext"), self.section(".BTF")
        if not extra or not btf:
            return {}
        head, _, _, line_offset, line_length = struct.unpack_from("<IIIII", extra, 4)
        btf_head, _, _, strings_offset, _ = struct.unpack_from("<IIIII", btf, 4)
        strings = btf_head + strings_offset
        at, end = head + line_offset, head + line_offset + line_length
        (size,) = struct.unpack_from("<I", extra, at)
        at += 4
        found = {}
        while at < end:
            name, count = struct.unpack_from("<II", extra, at)
            at += 8
            section = btf[strings + name : btf.index(b"\0", strings + name)].decode()
            records = [struct.unpack_from("<IIII", extra, at + size * index) for index in range(count)]
            at += size * count
            found[section] = [(offset // 8, place >> 10, place & _MAX_COLUMN) for offset, _, _, place in records]
        return found


def _filled(lines: list[tuple[int, int, int]], known: Mapping[int, str]) -> list[tuple[int, int, int]]:
    """Let instructions without a line of the handler's (LLVM gives a prologue another one) belong to the next."""
    filled, following = [], (0, 0)
    for index, line, column in reversed(lines):
        following = (line, column) if line in known or not following[0] else following
        filled.append((index, *following))
    return filled[::-1]


def read_programs(
    content: bytes, handler: Handler, ways: tuple[tuple[str, str], ...], cookie: str
) -> tuple[Program, ...]:
    """Return the programs in the object file *content*: one for each (section name, way) of *ways*.

    Raises:
        InternalError: the code calls or refers to something that no engine can supply.
    """
    file = ObjectFile(content)
    lines = file.lines()
    return tuple(_program(file, handler, place, cookie, lines.get(place[0], [])) for place in ways)


def _program(
    file: ObjectFile, handler: Handler, place: tuple[str, str], cookie: str, lines: list[tuple[int, int, int]]
) -> Program:
    section, way = place
    code = file.section(section)
    _check_stack(code, handler)
    btf = BtfText()
    function = btf.function(handler.name)
    name = btf.string(handler.file)
    records, sources = [], []
    for index, line, column in _filled(lines, handler.lines):
        text = handler.lines.get(line, "")
        records.append(struct.pack("<IIII", index, name, btf.string(text.strip()), line << 10 | column))
        sources.append(SourceLine(index, handler.file, line, max(column - 1, 0), text))
    return Program(
        name=handler.name,
        way=way,
        instructions=code,
        relocations=tuple(_relocation(code, found) for found in file.relocations(section)),
        btf=btf.finish(),
        func_info=struct.pack("<II", 0, function),
        line_info=b"".join(records),
        lines=tuple(sources),
        cookie=cookie,
    )


def _check_stack(code: bytes, handler: Handler) -> None:
    """Raise unless *code* keeps to the stack of BPF: look at each offset from the frame pointer. An address is
    the frame pointer copied, and the next instruction adds to it."""
    depth, copied = 0, -1
    for opcode, registers, offset, immediate in struct.iter_unpack("<BBhi", code):
        to, source = registers & 15, registers >> 4
        base = source if opcode & 7 == _LOAD else to if opcode & 7 in (_STORE, _STORE_IMMEDIATE) else -1
        if base == _FRAME:
            depth = max(depth, -offset)
        elif opcode == _ADD and to == copied:
            depth = max(depth, -immediate)
        copied = to if opcode == _MOVE and source == _FRAME else -1
    if depth > _STACK:
        raise StackError(handler, f"{depth} bytes of stack, and a BPF program has {_STACK}")


def _relocation(code: bytes, found: tuple[int, int, str]) -> Relocation:
    offset, kind, symbol = found
    if kind != _R_BPF_64_64 or code[offset] != _LD_IMM64:
        raise InternalError(f"the lowering left a reference to {symbol!r} that can't be filled in")
    low, high = struct.unpack_from("<I", code, offset + 4)[0], struct.unpack_from("<I", code, offset + 12)[0]
    addend = high << 32 | low
    index = offset // 8
    if symbol == "site":
        return Relocation(index, "site")
    what, _, name = symbol.partition(":")
    if what == "map":
        return Relocation(index, "map", name)
    if what == "value":
        return Relocation(index, "map_value", name, addend)
    raise InternalError(f"the lowering refers to {symbol!r}, which is nothing of a plan's")
