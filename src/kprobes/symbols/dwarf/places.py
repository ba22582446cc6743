"""Source lines and inlined functions to addresses, and addresses to lines."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from kprobes.frozen import dataclass
from kprobes.symbols.dwarf.lines import read_head, rows
from kprobes.symbols.dwarf.numbers import At, Form, Tag
from kprobes.symbols.dwarf.program import DebugProgram, entries_in_scopes, reading
from kprobes.symbols.dwarf.ranges import entry_address

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from kprobes.symbols.dwarf.lines import Row
    from kprobes.symbols.dwarf.units import Entry, Unit

MOST_COPIES = 10_000
_SUBPROGRAMS = frozenset({Tag.SUBPROGRAM})


@dataclass(frozen=True, slots=True)
class Line:
    """What a line of a source file was compiled to.

    *addresses* by the full path of the file: several files may be called as the user wrote. *near* are lines with code
    of that file, the nearest first, where the line itself has none; *is_known* tells whether there is such a file.
    """

    addresses: dict[str, tuple[int, ...]]
    near: tuple[int, ...]
    is_known: bool


def find_line(program: DebugProgram, file: str, line: int, is_code: Callable[[int], bool]) -> Line:
    """Return what *line* of *file* (its name, the end of its path, or all of it) was compiled to.

    Of code that stands at several addresses (inlined, unrolled, before and behind a loop) each beginning counts.

    Raises:
        FormatError: the debugging information is malformed.
    """
    found: dict[str, dict[int, bool]] = {}
    lines: set[int] = set()
    is_known = False
    with reading(program.path):
        for unit, paths in _units_with(program, file):
            is_known = True
            head = read_head(unit)
            assert head is not None
            for row, begins in _beginnings(rows(unit, head), paths):
                if not is_code(row.address):
                    continue
                lines.add(row.line)
                if row.line == line and begins:
                    here = found.setdefault(paths[row.file], {})
                    here[row.address] = here.get(row.address, False) or row.end > row.address
    chosen = {path: _preferred(addresses) for path, addresses in found.items()}
    near = tuple(sorted(lines, key=lambda one: (abs(one - line), one))[:3]) if not found else ()
    return Line(chosen, near, is_known)


def line_at(program: DebugProgram, address: int, *, is_entry: bool = False) -> tuple[str, int] | None:
    """Return the source file and line that the code at *address* (*is_entry*: of a function) came from, None where
    nothing tells."""
    with reading(program.path):
        unit = program.unit_of(address)
        head = read_head(unit) if unit is not None else None
        if unit is None or head is None:
            return None
        found = None
        for row in rows(unit, head):
            if is_entry and row.address == address:
                found = row  # of the lines that begin there the function's own: what was inlined follows
                break
            if row.address <= address < row.end:
                found = row
        return (_path(head.files, found.file), found.line) if found is not None else None


def inlined_at(program: DebugProgram, name: str) -> list[int]:
    """Return the addresses at which copies of the function *name* begin that were inlined."""
    with reading(program.path):
        found: set[int] = set()
        for abstract in _abstracts(program, name):
            for unit in _units_that_mention(abstract):
                for copy in _copies(unit, abstract):
                    address = entry_address(copy)
                    if address:
                        found.add(address)
                    if len(found) >= MOST_COPIES:
                        return sorted(found)
        return sorted(found)


def source_files(program: DebugProgram) -> set[str]:
    """Return the names, without directories, of all source files."""
    names: set[str] = set()
    with reading(program.path):
        for unit in program.units():
            head = read_head(unit)
            names.update(path.rpartition("/")[2] for path in (head.files if head is not None else ()))
    return names


def _preferred(addresses: dict[int, bool]) -> tuple[int, ...]:
    """Return the addresses that have code of the line; all, where another line's code follows at once on each."""
    full = [address for address, has_code in addresses.items() if has_code]
    return tuple(sorted(full or addresses))


def _units_with(program: DebugProgram, file: str) -> Iterator[tuple[Unit, dict[int, str]]]:
    """Return the units that have code of *file*, with the paths that it means there by their number."""
    for unit in program.units():
        if unit.home is not program.main and not unit.home.suffix:
            continue
        head = read_head(unit)
        if head is None:
            continue
        paths = {number: path for number, name in enumerate(head.files) if (path := _meant(name, file))}
        if paths:
            yield unit, paths


def _meant(name: str, file: str) -> str:
    """Return the path of a source file if the user means it by *file*, else nothing."""
    if not name.endswith(file.rpartition("/")[2]):
        return ""
    path = posixpath.normpath(name)
    if file.startswith("/"):
        return path if path == posixpath.normpath(file) else ""
    return path if f"/{path}".endswith(f"/{posixpath.normpath(file)}") else ""


def _beginnings(of_unit: Iterator[Row], files: Container[int]) -> Iterator[tuple[Row, bool]]:
    """Return the rows of *files* where a statement begins, each with whether it is the first of a run of its line."""
    run = end = -1
    has_begun = False
    for row in of_unit:
        if row.file not in files:
            run = -1
            continue
        if row.line != run or row.address != end:
            run, has_begun = row.line, False
        end = row.end
        if row.is_stmt:
            yield row, not has_begun
            has_begun = True


def _path(files: tuple[str, ...], number: int) -> str:
    return posixpath.normpath(files[number]) if number < len(files) else "?"


def _abstracts(program: DebugProgram, name: str) -> Iterator[Entry]:
    """Return what copies of the function *name* refer to: the entry that names it, or one that completes that."""
    for entry in program.named(name, _SUBPROGRAMS):
        if At.LOW_PC in entry.values or At.RANGES in entry.values:
            continue
        if not entry.flag(At.DECLARATION):
            yield entry
            continue
        home = entry.unit.home
        for offset in entries_in_scopes(entry.unit, _SUBPROGRAMS, At.SPECIFICATION):
            other = home.entry(entry.unit, offset)
            declared = other.entry(At.SPECIFICATION)
            if declared is not None and declared.offset == entry.offset:
                yield other


def _units_that_mention(abstract: Entry) -> Iterator[Unit]:
    """Return the units whose code may hold copies of *abstract*: its own, or others where its own has no code."""
    home = abstract.unit.home
    root = home.root(abstract.unit)
    if At.LOW_PC in root.values or At.RANGES in root.values:
        yield abstract.unit
        return
    needle = abstract.offset.to_bytes(abstract.unit.width, "little")
    seen: set[int] = set()
    at = home.info.find(needle)
    while at >= 0:
        for unit in home.units_around(at):
            if unit.offset not in seen:
                seen.add(unit.offset)
                yield unit
        at = home.info.find(needle, at + 1)


def _copies(unit: Unit, abstract: Entry) -> Iterator[Entry]:
    home = unit.home
    for offset, shape, _ in home.everything(unit):
        if shape.tag != Tag.INLINED or At.ABSTRACT_ORIGIN not in shape.whats:
            continue
        entry = home.entry(unit, offset)
        form, value = entry.values[At.ABSTRACT_ORIGIN]
        if isinstance(value, int) and value + (0 if form == Form.REF_ADDR else unit.offset) == abstract.offset:
            yield entry
