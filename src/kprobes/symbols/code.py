"""What code an ELF file holds, for engines that change it: where functions begin and end, and where else it is entered.

Unwind tables and symbol tables are put together; that takes up to 80 ms for a large library, so the answer is kept on
disk by build-id. So are the targets of its branches, which take 0.2 µs an instruction.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

from kprobes.model.plan import CodeObject
from kprobes.symbols.cache import read_cached, write_cached
from kprobes.symbols.eh_frame import code_ranges, landing_pads
from kprobes.symbols.elf import READ_LIMIT, ElfFile
from kprobes.symbols.elf_symbols import ElfSymbols

if TYPE_CHECKING:
    from collections.abc import Iterable

_VERSION = 2
_PAGE = 4096
_SUM = 4  # bytes of a checksum


def load_code(path: str, root: str = "", *, branches: bool = False) -> CodeObject:
    """Return the functions of the file *path* as file offsets; *root* is put before the paths of debug files.

    With *branches* it is told where they go, which pays for hundreds of sites.

    Ranges don't overlap and ascend. *entries* are landing pads, functions without a size, and those that begin inside
    another.

    Raises:
        FormatError: the file can't be read or is malformed.
    """
    with ElfFile(path) as elf:
        name = f"code-{elf.build_id}-{elf.size:x}" if elf.build_id.isalnum() else ""
        kept = _parse_kept(read_cached(name) if name else None)
        if kept is None:
            kept = _gather(elf, root)
            if name:
                write_cached(name, (_format_kept(*kept),))
        packed = _branches(elf) if branches else b""
    functions, entries = kept
    return CodeObject(path, tuple(zip(functions[::2], functions[1::2], strict=True)), tuple(entries), packed)


def _branches(elf: ElfFile) -> bytes:
    """Return where the branches go in the one executable segment of *elf*; nothing where it has several."""
    from zlib import crc32

    code = [load for load in elf.loads if load.flags & 1]
    if len(code) != 1 or code[0].file_size + 2 * _PAGE > READ_LIMIT:
        return b""
    name = f"branches-{elf.build_id}-{elf.size:x}" if elf.build_id.isalnum() else ""
    kept = read_cached(name) if name else None
    if kept is not None and len(kept) > _SUM and int.from_bytes(kept[:_SUM], "little") == crc32(kept[_SUM:]):
        return kept[_SUM:]
    from kprobes.arch.x86_64.decode import branch_targets
    from kprobes.model.branches import pack_branches

    start = code[0].offset & -_PAGE
    raw = elf.read(start, min(code[0].offset + code[0].file_size + _PAGE - 1 & -_PAGE, elf.size) - start)
    raw = raw.ljust(len(raw) + _PAGE - 1 & -_PAGE, b"\0")  # as it is mapped
    packed = pack_branches(raw, start, branch_targets(raw, start))
    if name:
        write_cached(name, (crc32(packed).to_bytes(_SUM, "little"), packed))
    return packed


def _gather(elf: ElfFile, root: str) -> tuple[array[int], array[int]]:
    ranges = code_ranges(elf)
    spans: dict[int, int] = {}
    end = 0
    for one in ranges:
        if one.start >= end:
            spans[one.start] = end = one.end
    starts = sorted(spans)
    entries = set(landing_pads(elf, ranges))
    symbols = ElfSymbols(elf, root)
    known = [(symbol.address, symbol.size) for symbol in symbols.functions]
    for address, size in known + [(label, 0) for label in symbols.labels()]:
        at = bisect_right(starts, address) - 1
        if at >= 0 and address < spans[starts[at]]:
            if address != starts[at]:
                entries.add(address)
        elif size:
            after = starts[at + 1] if at + 1 < len(starts) else 1 << 64
            spans[address] = min(address + size, after)
        else:
            entries.add(address)
    return _offsets(elf, _flat(spans)), _offsets(elf, sorted(entries))


def _flat(spans: dict[int, int]) -> list[int]:
    flat: list[int] = []
    for start in sorted(spans):
        if not flat or start >= flat[-1]:
            flat += (start, spans[start])
    return flat


def _offsets(elf: ElfFile, addresses: Iterable[int]) -> array[int]:
    """Return *addresses* of code as file offsets. An end may lie just behind its segment."""
    moved = array("Q")
    code = [(s.address, s.address + s.file_size, s.offset - s.address) for s in elf.loads if s.flags & 1]
    for address in addresses:
        shift = next((by for low, high, by in code if low <= address <= high), 0)
        moved.append(address + shift)
    return moved


def _format_kept(functions: array[int], entries: array[int]) -> bytes:
    from zlib import crc32

    body = functions.tobytes() + entries.tobytes()
    return array("Q", [_VERSION, len(functions), crc32(body)]).tobytes() + body


def _parse_kept(data: bytes | None) -> tuple[array[int], array[int]] | None:
    from zlib import crc32

    if data is None or len(data) < 24 or len(data) % 8:
        return None
    words = array("Q", data)
    version, count, checksum = words[:3]
    if version != _VERSION or count % 2 or count > len(words) - 3 or crc32(memoryview(data)[24:]) != checksum:
        return None
    return words[3 : 3 + count], words[3 + count :]
