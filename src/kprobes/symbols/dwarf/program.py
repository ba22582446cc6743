"""The debugging information of one program or library: names, addresses and functions to entries."""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from contextlib import contextmanager
from functools import cached_property

from kprobes.errors import FormatError
from kprobes.symbols.dwarf.abbreviations import skip
from kprobes.symbols.dwarf.numbers import C_LANGUAGES, At, Tag
from kprobes.symbols.dwarf.ranges import entry_address, ranges_of
from kprobes.symbols.dwarf.sections import Sections
from kprobes.symbols.dwarf.units import Entry, Information, Unit
from kprobes.symbols.elf import ElfFile, parse_notes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Entries that hold others with names of their own.
SCOPES = frozenset({Tag.NAMESPACE, Tag.MODULE, Tag.STRUCTURE, Tag.CLASS, Tag.UNION, Tag.INTERFACE})
_SUBPROGRAMS = frozenset({Tag.SUBPROGRAM})
NESTING_LIMIT = 32
ORIGIN_LIMIT = 16
_PAIR = struct.Struct("<QQ")


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what malformed data makes of Python into FormatError."""
    try:
        yield
    except (IndexError, KeyError, ValueError, OverflowError, RecursionError, struct.error) as problem:
        if isinstance(problem, FormatError):
            raise
        raise FormatError(f"{path}: the debug information is malformed ({type(problem).__name__}: {problem})") from None


class DebugProgram:
    """The debugging information in the file *path*.

    Methods raise FormatError, and what `reading` makes one of.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.sections = Sections(path)
        self.homes: list[Information] = []
        self.main = self._add(self.sections)
        if self.sections.data(".debug_types"):
            self.main.types = self._add(self.sections, ".debug_types")
            self.main.types.main = self.main
        alternate = self._alternate_path()
        if alternate:
            self.main.alternate = self._add(Sections(alternate))
        self._split: dict[int, Unit | None] = {}
        self._functions: dict[tuple[int, int], dict[int, int]] = {}
        self._scopes: dict[tuple[int, int], list[tuple[int, int, str]]] = {}

    def _add(self, sections: Sections, section: str = ".debug_info", suffix: str = "") -> Information:
        home = Information(sections, len(self.homes), section, suffix)
        self.homes.append(home)
        return home

    def _alternate_path(self) -> str:
        """Return the file that holds what several debug files share (dwz), empty where there is none."""
        link = self.sections.data(".gnu_debugaltlink")
        name, _, build_id = link.partition(b"\0")
        if not name:
            return ""
        path = os.path.join(os.path.dirname(os.path.realpath(self.path)), os.fsdecode(name))  # noqa: PTH118, PTH120
        candidates = [path]
        if len(build_id) > 1:
            home = os.path.realpath(self.path).partition("/.build-id/")[0]
            candidates.append(f"{home}/.build-id/{build_id[:1].hex()}/{build_id[1:].hex()}.debug")
        return next((one for one in candidates if _has_build_id(one, build_id.hex())), "")

    # Keys.

    def key(self, entry: Entry) -> int:
        """Return the number that stands for *entry*."""
        return entry.unit.home.number << 40 | entry.offset

    def at_key(self, key: int) -> Entry:
        """Return the entry that *key* stands for."""
        home = self.homes[key >> 40]
        offset = key & (1 << 40) - 1
        return home.entry(home.unit_at(offset), offset)

    # Units.

    def units(self) -> Iterator[Unit]:
        """Return all units with entries; in place of a skeleton that whose code it stands for."""
        for home in [one for one in self.homes if not one.suffix]:
            for unit in home.units:
                full = self.full(unit)
                if full is not None:
                    yield full

    def full(self, unit: Unit) -> Unit | None:
        """Return the unit itself, or of a skeleton what it stands for; None where that is in a file that is missing."""
        if unit.home is not self.main:
            return unit
        if unit.offset not in self._split:
            self._split[unit.offset] = self._full(unit)
        return self._split[unit.offset]

    def _full(self, unit: Unit) -> Unit | None:
        root = self.main.root(unit)
        name = root.text(At.DWO_NAME) or root.text(At.GNU_DWO_NAME)
        if not name:
            return unit
        path = os.path.join(root.text(At.COMP_DIR), name)  # noqa: PTH118
        if not os.access(path, os.R_OK):
            return None
        home = self._add(Sections(path), suffix=".dwo")
        for one in home.units:
            home.skeletons[one.offset] = root
            is_whole = not one.signature and home.root(one).tag == Tag.COMPILE_UNIT
            if is_whole and _split_id(one) == _split_id(unit):  # another one is of another build
                return one
        return None

    @cached_property
    def missing(self) -> str:
        """Return a file that is missing and would tell more, empty where none is."""
        for unit in self.main.units:
            if self.full(unit) is None:
                root = self.main.root(unit)
                return root.text(At.DWO_NAME) or root.text(At.GNU_DWO_NAME)
        return ""

    @cached_property
    def _areas(self) -> tuple[list[int], list[tuple[int, Unit]]]:
        """Return starts of address ranges in ascending order, and (end, unit) of each."""
        by_offset = {unit.offset: unit for unit in self.main.units}
        found = [one for one in self._aranges() if one[2] in by_offset]
        known = {offset for _, _, offset in found}
        for unit in self.main.units:
            if unit.offset not in known and not unit.signature:
                found += [(low, high, unit.offset) for low, high in ranges_of(self.main.root(unit))]
        found.sort()
        return [low for low, _, _ in found], [(high, by_offset[offset]) for _, high, offset in found]

    def _aranges(self) -> Iterator[tuple[int, int, int]]:
        data, at = self.sections.data(".debug_aranges"), 0
        while at + 12 <= len(data):
            start, width = at, 4
            length = int.from_bytes(data[at : at + 4], "little")
            at += 4
            if length == 0xFFFFFFFF:
                length, at, width = int.from_bytes(data[at : at + 8], "little"), at + 8, 8
            end = min(at + length, len(data))
            unit = int.from_bytes(data[at + 2 : at + 2 + width], "little")
            first = start + (at + 4 + width - start + 15 & ~15)
            if first <= end:
                for low, size in _PAIR.iter_unpack(data[first : first + (end - first) // 16 * 16]):
                    if size:
                        yield low, low + size, unit
            at = max(end, at + 8)

    def unit_of(self, address: int) -> Unit | None:
        """Return the unit whose code *address* is, None where nothing tells."""
        starts, areas = self._areas
        place = bisect_right(starts, address) - 1
        if place < 0 or address >= areas[place][0]:
            return None
        return self.full(areas[place][1])

    # Entries by name.

    def named(self, name: str, tags: frozenset[int], first: Unit | None = None) -> Iterator[Entry]:
        """Return the entries of *tags* called *name* (`Shop::Item` of a namespace or class), those of *first* first."""
        path = [part.encode("utf-8", "replace") + b"\0" for part in split_name(name)]
        for unit in self.units_with(name, first):
            yield from self._named_in(unit, path, tags)

    def units_with(self, name: str, first: Unit | None = None) -> Iterator[Unit]:
        """Return the units that may speak of *name*: *first*, then all others, none where no string is that name."""
        if not all(self._occurs(part.encode("utf-8", "replace") + b"\0") for part in split_name(name)):
            return
        if first is not None:
            yield first
        yield from (unit for unit in self.units() if unit is not first)

    def _occurs(self, name: bytes) -> bool:
        """Return whether *name* stands in any section that names are in: most that don't are found out at once."""
        if self._is_split:
            return True
        sections = (".debug_str", ".debug_info", ".debug_types")
        return any(name in home.sections.data(section) for home in self.homes for section in sections)

    @cached_property
    def _is_split(self) -> bool:
        first = self.main.root(self.main.units[0]).values if self.main.units else {}
        return At.DWO_NAME in first or At.GNU_DWO_NAME in first

    def _named_in(self, unit: Unit, path: Sequence[bytes], tags: frozenset[int]) -> Iterator[Entry]:
        pending = [(unit.home.root(unit).after, 0)]
        home = unit.home
        for _ in range(1 << 16):
            if not pending:
                return
            at, depth = pending.pop()
            last = depth == len(path) - 1
            for offset, shape, values in home.offsets(unit, at):
                if shape.tag == Tag.NAMESPACE and _is_transparent(home, unit, offset, shape.whats):
                    pending.append((home.entry(unit, offset).after, depth))
                    continue
                if last:
                    if shape.tag in tags and home.is_called(unit, shape, values, path[depth]):
                        yield home.elsewhere(home.entry(unit, offset))
                elif shape.tag in SCOPES and shape.has_children and home.is_called(unit, shape, values, path[depth]):
                    pending.append((home.entry(unit, offset).after, depth + 1))

    # Scopes.

    def qualified_name(self, entry: Entry) -> str:
        """Return the name of *entry* with the namespaces and classes that it lies in, where its language has them."""
        if entry.unit.home.root(entry.unit).number(At.LANGUAGE) in C_LANGUAGES:  # units that others share say none
            return entry.name
        key = entry.unit.home.number, entry.unit.offset
        if key not in self._scopes:
            self._scopes[key] = list(_each_scope(entry.unit))
        names = [name for start, end, name in self._scopes[key] if start < entry.offset < end and name]
        return "::".join([*names, entry.name]) if entry.name else ""

    # Functions.

    def function_at(self, address: int) -> Entry | None:
        """Return the function that is entered at *address*, None where nothing tells of one."""
        unit = self.unit_of(address)
        if unit is None:
            return None
        offset = self.functions(unit).get(address)
        return unit.home.entry(unit, offset) if offset is not None else None

    def functions(self, unit: Unit) -> dict[int, int]:
        """Return the offsets of the functions of *unit* that have code, by the address of their entry."""
        key = unit.home.number, unit.offset
        if key not in self._functions:
            found: dict[int, int] = {}
            for offset in entries_in_scopes(unit, _SUBPROGRAMS):
                address = entry_address(unit.home.entry(unit, offset))
                if address is not None:
                    found.setdefault(address, offset)
            self._functions[key] = found
        return self._functions[key]


def _split_id(unit: Unit) -> int:
    return unit.split_id or unit.home.root(unit).number(At.GNU_DWO_ID) or 0


def _has_build_id(path: str, build_id: str) -> bool:
    if not os.access(path, os.R_OK):
        return False
    try:
        with ElfFile(path) as elf:
            note = elf.section(".note.gnu.build-id")  # such a file has no segments
            return note is not None and any(one[2].hex() == build_id for one in parse_notes(elf.section_data(note)))
    except FormatError:
        return False


def split_name(name: str) -> list[str]:
    """Return the parts of `a::b<c::d>::e`: `a`, `b<c::d>`, `e`."""
    parts, depth, begin, at = [], 0, 0, 0
    while at < len(name):
        depth += (name[at] == "<") - (name[at] == ">")
        if depth == 0 and name.startswith("::", at):
            parts.append(name[begin:at])
            at += 2
            begin = at
            continue
        at += 1
    return [*parts, name[begin:]]


def chain_of(entry: Entry) -> list[Entry]:
    """Return *entry* and the entries that it completes: its abstract origin, its declaration."""
    chain = [entry]
    for _ in range(ORIGIN_LIMIT):
        following = chain[-1].entry(At.ABSTRACT_ORIGIN) or chain[-1].entry(At.SPECIFICATION)
        if following is None:
            return chain
        chain.append(following)
    raise FormatError(f"{entry.unit.home.sections.path}: entries of the debug information go in a circle")


def name_of(entry: Entry) -> str:
    """Return the name of what *entry* or an entry that it completes describes."""
    return next((one.name for one in chain_of(entry) if At.NAME in one.values), "")


def _is_transparent(home: Information, unit: Unit, offset: int, whats: frozenset[int]) -> bool:
    """Return whether names in a namespace can be written without its name: it has none, or is `inline`."""
    return At.NAME not in whats or (At.EXPORT_SYMBOLS in whats and home.entry(unit, offset).flag(At.EXPORT_SYMBOLS))


def _each_scope(unit: Unit) -> Iterator[tuple[int, int, str]]:
    """Return (start, end, name) of each namespace and class, outer ones first."""
    home = unit.home
    pending = [(home.root(unit).after, 0, unit.end)]
    while pending:
        at, depth, end = pending.pop()
        offsets = [(offset, shape.tag in SCOPES and shape.has_children) for offset, shape, _ in home.offsets(unit, at)]
        ends = [*(offset for offset, _ in offsets[1:]), end]
        for (offset, is_scope), behind in zip(offsets, ends, strict=False):
            if is_scope and depth < NESTING_LIMIT:
                entry = home.entry(unit, offset)
                yield offset, behind, entry.name
                pending.append((entry.after, depth + 1, behind))


def entries_in_scopes(unit: Unit, tags: frozenset[int], what: int = 0) -> Iterator[int]:
    """Return the offsets of the entries of *tags* in *unit*, and in its namespaces and classes; of those only that say
    *what*, if it is given."""
    home, root = unit.home, unit.home.root(unit)
    deepest = 0 if root.number(At.LANGUAGE) in C_LANGUAGES else NESTING_LIMIT  # nothing nests in C
    pending = [(root.after, 0)]
    while pending:
        at, depth = pending.pop()
        for offset, shape, values in home.offsets(unit, at):
            if shape.tag in tags:
                if not what or what in shape.whats:
                    yield offset
            elif shape.tag in SCOPES and shape.has_children and depth < deepest:
                pending.append((skip(home.info, values, shape.steps), depth + 1))
