"""Units of debugging information and their entries.

A unit is what one source file was compiled to: a tree of entries, each a tag with values. `Information` reads the units
of one section; entries are read one by one, or stepped over.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property

from kprobes.errors import FormatError
from kprobes.frozen import dataclass
from kprobes.symbols.dwarf.abbreviations import Abbreviation, parse_abbreviations, skip, sleb, uleb
from kprobes.symbols.dwarf.numbers import At, Form

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.symbols.dwarf.sections import Sections

MOST_UNITS = 1 << 20
_TYPE_UNIT, _SPLIT_TYPE_UNIT, _SKELETON, _SPLIT_COMPILE = 2, 6, 4, 5
_STRX = frozenset({Form.STRX, Form.STRX1, Form.STRX2, Form.STRX3, Form.STRX4, Form.GNU_STR_INDEX})
ADDRX = frozenset({Form.ADDRX, Form.ADDRX1, Form.ADDRX2, Form.ADDRX3, Form.ADDRX4, Form.GNU_ADDR_INDEX})
_LOCAL = frozenset({Form.REF1, Form.REF2, Form.REF4, Form.REF8, Form.REF_UDATA})
_ALTERNATE = frozenset({Form.GNU_REF_ALT, Form.REF_SUP4, Form.REF_SUP8})
_ALTERNATE_STRINGS = frozenset({Form.GNU_STRP_ALT, Form.STRP_SUP})
_WIDTHS: dict[int, int] = {
    Form.ADDR: 8, Form.DATA1: 1, Form.DATA2: 2, Form.DATA4: 4, Form.DATA8: 8, Form.DATA16: 16, Form.FLAG: 1,
    Form.REF1: 1, Form.REF2: 2, Form.REF4: 4, Form.REF8: 8, Form.REF_SIG8: 8, Form.STRX1: 1, Form.STRX2: 2,
    Form.STRX3: 3, Form.STRX4: 4, Form.ADDRX1: 1, Form.ADDRX2: 2, Form.ADDRX3: 3, Form.ADDRX4: 4, Form.REF_SUP4: 4,
    Form.REF_SUP8: 8,
}  # fmt: skip
_NUMBERS = frozenset({
    Form.UDATA, Form.REF_UDATA, Form.STRX, Form.ADDRX, Form.LOCLISTX, Form.RNGLISTX, Form.GNU_ADDR_INDEX,
    Form.GNU_STR_INDEX,
})  # fmt: skip
_BLOCKS: dict[int, int] = {Form.BLOCK1: 1, Form.BLOCK2: 2, Form.BLOCK4: 4}


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """The head of a unit: its entries lie from *first* to *end* in the section of *home*, offsets in it take *width*
    bytes. *signature* and *type_offset* are those of a unit for one type, else 0; *split_id* is what a skeleton and the
    unit that it stands for have in common, 0 where the head doesn't tell."""

    home: Information
    offset: int
    first: int
    end: int
    version: int
    width: int
    abbreviations: int
    signature: int
    type_offset: int
    split_id: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """An entry: *values* are (form, value) by what they say, where a value is a number or, of a block, its bytes (of a
    name in place, too). Its children begin at *after*."""

    unit: Unit
    offset: int
    tag: int
    has_children: bool
    values: dict[int, tuple[int, int | bytes]]
    after: int

    def number(self, what: int) -> int | None:
        """Return the number *what*; None where there is none."""
        found = self.values.get(what)
        return found[1] if found and isinstance(found[1], int) else None

    def block(self, what: int) -> bytes | None:
        """Return the expression *what*; None where there is none."""
        found = self.values.get(what)
        return found[1] if found and isinstance(found[1], bytes) else None

    def flag(self, what: int) -> bool:
        """Return whether *what* is said."""
        return bool(self.values.get(what, (0, 0))[1])

    def text(self, what: int) -> str:
        """Return the string *what*, empty where there is none."""
        found = self.values.get(what)
        return self.unit.home.string(self.unit, *found).decode("utf-8", "replace") if found else ""

    @property
    def name(self) -> str:
        """Return the name of what it describes, empty where it has none."""
        return self.text(At.NAME)

    def entry(self, what: int) -> Entry | None:
        """Return the entry that *what* refers to, None where there is none."""
        found = self.values.get(what)
        if found is None or not isinstance(found[1], int):
            return None
        return self.unit.home.referred(self.unit, found[0], found[1])

    def children(self) -> Iterator[Entry]:
        """Return the entries in it."""
        if self.has_children:
            for offset, _, _ in self.unit.home.offsets(self.unit, self.after):
                yield self.unit.home.entry(self.unit, offset)


class Information:
    """The units in one section of a file: `.debug_info`, or `.debug_types` of DWARF 4.

    *number* tells it from others that refer to it or are referred to (`key` makes one number of it and an offset).
    Methods that read raise FormatError, IndexError, KeyError or ValueError where the data is malformed: the doors of
    this package turn all of them into FormatError.
    """

    def __init__(self, sections: Sections, number: int = 0, section: str = ".debug_info", suffix: str = "") -> None:
        self.sections = sections
        self.number = number
        self.suffix = suffix
        self.info = sections.data(section + suffix)
        self._in_types = section == ".debug_types"
        self._tables: dict[tuple[int, int, int], dict[int, Abbreviation]] = {}
        self._roots: dict[int, Entry] = {}
        self.alternate: Information | None = None
        self.types: Information | None = None
        self.main: Information = self
        self.skeletons: dict[int, Entry] = {}

    def section(self, name: str) -> bytes:
        """Return the section *name* that belongs to these units."""
        return self.sections.data(name + self.suffix)

    # Units.

    @cached_property
    def units(self) -> list[Unit]:
        """Return all units in the order of the file."""
        found: list[Unit] = []
        at = 0
        while at + 11 <= len(self.info):
            unit = self._head(at)
            if unit.end <= at or unit.end > len(self.info) or len(found) >= MOST_UNITS:
                raise FormatError(f"{self.sections.path}: the debug information is cut short")
            found.append(unit)
            at = unit.end
        return found

    def _head(self, offset: int) -> Unit:
        data, at, width = self.info, offset + 4, 4
        length = int.from_bytes(data[offset:at], "little")
        if length == 0xFFFFFFFF:
            length, at, width = int.from_bytes(data[at : at + 8], "little"), at + 8, 8
        end = at + length
        version = int.from_bytes(data[at : at + 2], "little")
        if not 2 <= version <= 5:
            raise FormatError(f"{self.sections.path}: debug information of version {version}")
        at += 2
        if version == 5:
            kind, address_size = data[at], data[at + 1]
            at += 2
        abbreviations = int.from_bytes(data[at : at + width], "little")
        at += width
        if version < 5:
            kind, address_size = (_TYPE_UNIT if self._in_types else 1), data[at]
            at += 1
        if address_size != 8:
            raise FormatError(f"{self.sections.path}: debug information of {8 * address_size}-bit code")
        signature = type_offset = split_id = 0
        if kind in (_TYPE_UNIT, _SPLIT_TYPE_UNIT):
            signature = int.from_bytes(data[at : at + 8], "little")
            type_offset = int.from_bytes(data[at + 8 : at + 8 + width], "little")
            at += 8 + width
        elif kind in (_SKELETON, _SPLIT_COMPILE):
            split_id = int.from_bytes(data[at : at + 8], "little")
            at += 8
        return Unit(self, offset, at, end, version, width, abbreviations, signature, type_offset, split_id)

    @cached_property
    def _starts(self) -> list[int]:
        return [unit.offset for unit in self.units]

    @cached_property
    def _signatures(self) -> dict[int, Unit]:
        return {unit.signature: unit for unit in self.units if unit.signature}

    def unit_at(self, offset: int) -> Unit:
        """Return the unit that the entry at *offset* belongs to."""
        place = bisect_right(self._starts, offset) - 1
        if place < 0 or not self.units[place].first <= offset < self.units[place].end:
            raise FormatError(f"{self.sections.path}: the debug information refers to what isn't there")
        return self.units[place]

    def units_around(self, offset: int) -> list[Unit]:
        """Return the unit that *offset* lies in, if it lies in one."""
        place = bisect_right(self._starts, offset) - 1
        return [self.units[place]] if place >= 0 and offset < self.units[place].end else []

    def root(self, unit: Unit) -> Entry:
        """Return the first entry of *unit*, which stands for all of it."""
        if unit.offset not in self._roots:
            self._roots[unit.offset] = self.entry(unit, unit.first)
        return self._roots[unit.offset]

    def table(self, unit: Unit) -> dict[int, Abbreviation]:
        """Return the abbreviations of *unit* by code."""
        key = unit.abbreviations, unit.version, unit.width
        if key not in self._tables:
            data = self.section(".debug_abbrev")
            self._tables[key] = parse_abbreviations(data, key[0], version=key[1], width=key[2])
        return self._tables[key]

    # Entries.

    def entry(self, unit: Unit, offset: int) -> Entry:
        """Return the entry at *offset*."""
        code, at = uleb(self.info, offset)
        shape = self.table(unit)[code]
        values: dict[int, tuple[int, int | bytes]] = {}
        for what, form, constant in shape.attributes:
            if form == Form.IMPLICIT_CONST:
                values[what] = form, constant
                continue
            value, at = self._value(unit, form, at)
            values[what] = form, value
        if at > unit.end:
            raise FormatError(f"{self.sections.path}: an entry of the debug information is cut short")
        return Entry(unit, offset, shape.tag, shape.has_children, values, at)

    def _value(self, unit: Unit, form: int, at: int) -> tuple[int | bytes, int]:
        data = self.info
        width = _WIDTHS.get(form)
        if width is not None:
            return int.from_bytes(data[at : at + width], "little"), at + width
        if form in _NUMBERS:
            return uleb(data, at)
        if form == Form.SDATA:
            return sleb(data, at)
        if form == Form.FLAG_PRESENT:
            return 1, at
        if form == Form.STRING:
            end = data.index(b"\0", at)
            return data[at:end], end + 1
        if form in (Form.EXPRLOC, Form.BLOCK):
            size, at = uleb(data, at)
            return data[at : at + size], at + size
        if form in _BLOCKS:
            start = at + _BLOCKS[form]
            end = start + int.from_bytes(data[at:start], "little")
            return data[start:end], end
        if form == Form.INDIRECT:
            raise FormatError(f"{self.sections.path}: the debug information has values of indirect form")
        width = 8 if form == Form.REF_ADDR and unit.version == 2 else unit.width
        return int.from_bytes(data[at : at + width], "little"), at + width

    def offsets(self, unit: Unit, at: int) -> Iterator[tuple[int, Abbreviation, int]]:
        """Return (offset, shape, where its values begin) of the entry at *at* and of those beside it."""
        data, table, end = self.info, self.table(unit), unit.end
        while at < end:
            start = at
            code = data[at]
            at += 1
            if code >= 0x80:
                code, at = uleb(data, start)
            if not code:
                return
            shape = table[code]
            yield start, shape, at
            if shape.has_children:
                at = self._behind(unit, shape, at)
            elif shape.size >= 0:
                at += shape.size
            else:
                at = skip(data, at, shape.steps)

    def _behind(self, unit: Unit, shape: Abbreviation, at: int) -> int:
        """Return where the entry with children ends whose values begin at *at*."""
        if shape.sibling is not None:
            return self._sibling(unit, shape.sibling, at)
        at = skip(self.info, at, shape.steps)
        data, table, depth = self.info, self.table(unit), 1
        while depth:
            if at >= unit.end:
                raise FormatError(f"{self.sections.path}: an entry of the debug information is cut short")
            code, at = uleb(data, at)
            if not code:
                depth -= 1
                continue
            shape = table[code]
            if shape.has_children and shape.sibling is not None:
                at = self._sibling(unit, shape.sibling, at)
                continue
            depth += shape.has_children
            at = at + shape.size if shape.size >= 0 else skip(data, at, shape.steps)
        return at

    def _sibling(self, unit: Unit, steps: tuple[int, ...], at: int) -> int:
        place = skip(self.info, at, steps)
        found = unit.offset + int.from_bytes(self.info[place : place + 4], "little")
        if found <= at:
            raise FormatError(f"{self.sections.path}: entries of the debug information go in a circle")
        return found

    def everything(self, unit: Unit) -> Iterator[tuple[int, Abbreviation, int]]:
        """Return (offset, shape, depth) of all entries of *unit* below its first, in the order of the file."""
        data, table, end = self.info, self.table(unit), unit.end
        root = self.root(unit)
        at, depth = root.after, int(root.has_children)
        while at < end and depth:
            start = at
            code = data[at]
            at += 1
            if code >= 0x80:
                code, at = uleb(data, start)
            if not code:
                depth -= 1
                continue
            shape = table[code]
            yield start, shape, depth
            depth += shape.has_children
            at = at + shape.size if shape.size >= 0 else skip(data, at, shape.steps)

    def is_called(self, unit: Unit, shape: Abbreviation, at: int, wanted: bytes) -> bool:
        """Return whether the entry whose values begin at *at* has the name *wanted*, which ends with a NUL."""
        if shape.name is None:
            return False
        steps, form = shape.name
        at = skip(self.info, at, steps) if steps else at
        if form == Form.STRING:
            return self.info.startswith(wanted, at)
        if form == Form.STRP:
            place = int.from_bytes(self.info[at : at + unit.width], "little")
            return self.section(".debug_str").startswith(wanted, place)
        value, _ = self._value(unit, form, at)
        return self.string(unit, form, value) == wanted[:-1]

    # Values.

    def string(self, unit: Unit, form: int, value: int | bytes) -> bytes:
        """Return the string of a value; none where it can't be had."""
        if isinstance(value, bytes):
            return value
        if form in _STRX:
            base = self.root(unit).number(At.STR_OFFSETS_BASE)
            if base is None:
                base = (8 if unit.width == 4 else 16) if unit.version == 5 else 0
            at = base + value * unit.width
            value = int.from_bytes(self.section(".debug_str_offsets")[at : at + unit.width], "little")
        home = self
        if form in _ALTERNATE_STRINGS:
            if self.main.alternate is None:
                return b""
            home = self.main.alternate
        strings = home.section(".debug_line_str" if form == Form.LINE_STRP else ".debug_str")
        end = strings.find(b"\0", value)
        return strings[value:end] if 0 <= value < end else b""

    def address(self, unit: Unit, form: int, value: int) -> int:
        """Return the address of a value."""
        if form not in ADDRX:
            return value
        skeleton = self.skeletons.get(unit.offset)
        owner = skeleton or self.root(unit)
        base = owner.number(At.ADDR_BASE)
        if base is None:
            base = owner.number(At.GNU_ADDR_BASE) or 0
        at = base + 8 * value
        found = owner.unit.home.section(".debug_addr")[at : at + 8]
        if len(found) < 8:
            raise FormatError(f"{self.sections.path}: the debug information refers to an address that isn't there")
        return int.from_bytes(found, "little")

    def address_of(self, entry: Entry, what: int) -> int | None:
        """Return the address that *entry* gives as *what*, None where it gives none."""
        found = entry.values.get(what)
        if found is None or not isinstance(found[1], int):
            return None
        return self.address(entry.unit, found[0], found[1])

    def referred(self, unit: Unit, form: int, value: int) -> Entry | None:
        """Return the entry that a reference means, of a type in a unit of its own that; None where that is in a file
        that isn't there."""
        found = self._referred(unit, form, value)
        return self.elsewhere(found) if found is not None else None

    def elsewhere(self, entry: Entry) -> Entry:
        """Return the type that *entry* stands for where that is described in a unit of its own; else *entry*."""
        form, value = entry.values.get(At.SIGNATURE, (0, 0))
        found = self._by_signature(value) if form == Form.REF_SIG8 and isinstance(value, int) else None
        return found or entry

    def _referred(self, unit: Unit, form: int, value: int) -> Entry | None:
        if form in _LOCAL:
            offset = unit.offset + value
            if not unit.first <= offset < unit.end:
                raise FormatError(f"{self.sections.path}: the debug information refers to what isn't there")
            return self.entry(unit, offset)
        if form == Form.REF_SIG8:
            return self._by_signature(value)
        home: Information | None = self.main
        if form in _ALTERNATE:
            home = self.main.alternate
        elif form != Form.REF_ADDR and form not in (Form.DATA4, Form.DATA8, Form.SEC_OFFSET):
            return None
        return home.entry(home.unit_at(value), value) if home is not None else None

    def _by_signature(self, signature: int) -> Entry | None:
        for home in (self, self.main, self.main.types):
            unit = home._signatures.get(signature) if home is not None else None
            if unit is not None:
                return unit.home.entry(unit, unit.offset + unit.type_offset)
        return None
