"""Which addresses an entry covers. Source: DWARF 5, 2.17 and 7.25 (range lists); DWARF 4, 2.17.3."""

from __future__ import annotations

import struct

from kprobes.errors import FormatError
from kprobes.symbols.dwarf.abbreviations import uleb
from kprobes.symbols.dwarf.numbers import At, Form
from kprobes.symbols.dwarf.units import ADDRX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.symbols.dwarf.units import Entry, Information, Unit

MOST_RANGES = 1 << 16
ADDRESSES = ADDRX | {Form.ADDR}
_PAIR = struct.Struct("<QQ")
_BASE = (1 << 64) - 1


def ranges_of(entry: Entry) -> list[tuple[int, int]]:
    """Return the (start, end) addresses that *entry* covers, in the order of the file; none where it has no code."""
    home = entry.unit.home
    low = home.address_of(entry, At.LOW_PC)
    high = entry.values.get(At.HIGH_PC)
    if low is not None and high is not None and isinstance(high[1], int):
        end = home.address(entry.unit, high[0], high[1]) if high[0] in ADDRESSES else low + high[1]
        return [(low, end)]
    found = entry.values.get(At.RANGES)
    if found is None or not isinstance(found[1], int):
        return []
    form, value = found[0], found[1]
    ranges = _rnglist(home, entry.unit, form, value) if entry.unit.version == 5 else _old_list(home, entry.unit, value)
    return [pair for pair in ranges if pair[0] < pair[1]]


def entry_address(entry: Entry) -> int | None:
    """Return where the code of *entry* is entered, None where it has none."""
    home = entry.unit.home
    found = entry.values.get(At.ENTRY_PC)
    ranges = ranges_of(entry)
    if found is None:
        low = home.address_of(entry, At.LOW_PC)
        return ranges[0][0] if ranges else low
    if found[0] in ADDRESSES or not isinstance(found[1], int):
        return home.address_of(entry, At.ENTRY_PC)
    return ranges[0][0] + found[1] if ranges else None  # an offset, DWARF 5


def _base_of(unit: Unit) -> int:
    home = unit.home
    owner = home.skeletons.get(unit.offset) or home.root(unit)
    return owner.unit.home.address_of(owner, At.LOW_PC) or 0


def _old_list(home: Information, unit: Unit, at: int) -> Iterator[tuple[int, int]]:
    skeleton = home.skeletons.get(unit.offset)
    owner = skeleton.unit.home if skeleton else home
    if skeleton:
        at += skeleton.number(At.GNU_RANGES_BASE) or 0
    data, base = owner.section(".debug_ranges"), _base_of(unit)
    for _ in range(MOST_RANGES):
        if at + 16 > len(data):
            raise FormatError(f"{home.sections.path}: a list of addresses is cut short")
        low, high = _PAIR.unpack_from(data, at)
        at += 16
        if low == _BASE:
            base = high
        elif not low and not high:
            return
        else:
            yield base + low, base + high


def _rnglist(home: Information, unit: Unit, form: int, value: int) -> Iterator[tuple[int, int]]:
    data = home.section(".debug_rnglists")
    at = value
    if form == Form.RNGLISTX:
        start = home.root(unit).number(At.RNGLISTS_BASE)
        if start is None:
            start = 12 if unit.width == 4 else 20
        place = start + value * unit.width
        at = start + int.from_bytes(data[place : place + unit.width], "little")
    base = _base_of(unit)
    for _ in range(MOST_RANGES):
        kind = data[at]
        at += 1
        if kind == 0:
            return
        first, at = _operand(data, at, kind in (1, 2, 3, 4))
        if kind == 1:
            base = home.address(unit, Form.ADDRX, first)
            continue
        if kind == 5:
            base = first
            continue
        second, at = _operand(data, at, kind != 6)
        if kind in (2, 3):
            first = home.address(unit, Form.ADDRX, first)
        if kind == 2:
            yield first, home.address(unit, Form.ADDRX, second)
        elif kind in (3, 7):
            yield first, first + second
        elif kind == 4:
            yield base + first, base + second
        elif kind == 6:
            yield first, second
        else:
            raise FormatError(f"{home.sections.path}: a list of addresses has entries of unknown kind {kind}")


def _operand(data: bytes, at: int, is_uleb: bool) -> tuple[int, int]:
    if is_uleb:
        return uleb(data, at)
    return int.from_bytes(data[at : at + 8], "little"), at + 8
