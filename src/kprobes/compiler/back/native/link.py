"""LLVM's object file becomes one piece of code that can stand anywhere: handlers, their constants, and what the engine
has to fill in.

Source: ELF-64 object file format; System V ABI, AMD64 supplement, 4.4 (relocation types).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kprobes.errors import InternalError
from kprobes.model.layout import align_up
from kprobes.model.plan import NativeRelocation

_SHT_PROGBITS, _SHT_SYMTAB, _SHT_RELA = 1, 2, 4
_SHF_ALLOC, _SHF_EXECINSTR = 2, 4
_R_64, _R_PC32, _R_PLT32, _R_PC64 = 1, 2, 4, 24
_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class Linked:
    """*code* with the offsets of its functions in *symbols*; *text_end* is where instructions end and constants
    begin."""

    code: bytes
    text_end: int
    symbols: dict[str, int]
    relocations: tuple[NativeRelocation, ...]


class _Object:
    def __init__(self, content: bytes) -> None:
        self.content = content
        (start,) = struct.unpack_from("<Q", content, 0x28)
        size, count = struct.unpack_from("<HH", content, 0x3A)
        self.sections = [struct.unpack_from("<IIQQQQIIQQ", content, start + size * index) for index in range(count)]
        self.symbols: list[tuple[str, int, int]] = []  # name, section, value
        for kind, offset, length, link in ((s[1], s[4], s[5], s[6]) for s in self.sections):
            if kind == _SHT_SYMTAB:
                strings = self.sections[link][4]
                for name, _, _, section, value, _ in struct.iter_unpack("<IBBHQQ", content[offset : offset + length]):
                    at = strings + name
                    self.symbols.append((content[at : content.index(b"\0", at)].decode(), section, value))

    def code(self) -> list[int]:
        """Return the numbers of the sections to keep, instructions first."""
        kept = [
            number
            for number, one in enumerate(self.sections)
            if one[1] == _SHT_PROGBITS and one[2] & _SHF_ALLOC and one[5]
        ]
        return sorted(kept, key=lambda number: not self.sections[number][2] & _SHF_EXECINSTR)


def link(content: bytes) -> Linked:
    """Return the code of the object file *content*.

    Raises:
        InternalError: it calls or refers to something that no engine can supply.
    """
    file = _Object(content)
    code, where, text_end = bytearray(), {}, 0
    for number in file.code():
        _, _, flags, _, offset, size, *_ = file.sections[number]
        code += b"\xcc" * (align_up(len(code), _ALIGNMENT) - len(code))
        where[number] = len(code)
        code += content[offset : offset + size]
        if flags & _SHF_EXECINSTR:
            text_end = len(code)
    relocations = []
    for kind, offset, size, target in ((s[1], s[4], s[5], s[7]) for s in file.sections):
        if kind != _SHT_RELA or target not in where:
            continue
        for at, info, addend in struct.iter_unpack("<QQq", content[offset : offset + size]):
            found = _relocate(file, code, where, (where[target] + at, info, addend))
            if found is not None:
                relocations.append(found)
    symbols = {name: where[section] + value for name, section, value in file.symbols if name and section in where}
    return Linked(bytes(code), text_end, symbols, tuple(relocations))


def _relocate(
    file: _Object, code: bytearray, where: dict[int, int], entry: tuple[int, int, int]
) -> NativeRelocation | None:
    """Carry out one relocation within the code, or return what the engine has to fill in."""
    at, info, addend = entry
    kind = info & 0xFFFFFFFF
    name, section, value = file.symbols[info >> 32]
    if section in where:
        inside = where[section] + value + addend
        if kind == _R_64:
            return NativeRelocation(at, "code", "", inside)
        if kind in (_R_PC32, _R_PLT32):
            struct.pack_into("<i", code, at, inside - at)
            return None
        if kind == _R_PC64:
            struct.pack_into("<q", code, at, inside - at)
            return None
    what, _, which = name.partition(":")
    if kind == _R_64 and what in ("map", "helper") and which:
        return NativeRelocation(at, what, which, addend)
    raise InternalError(f"the lowering refers to {name!r} by relocation {kind}, which no engine can fill in")
