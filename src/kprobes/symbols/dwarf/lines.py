"""Line programs: which addresses a source line was compiled to, and which line an address came from.

Source: DWARF 5, 6.2; DWARF 4, 6.2 for the older header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kprobes.errors import FormatError
from kprobes.frozen import dataclass
from kprobes.symbols.dwarf.abbreviations import sleb, uleb
from kprobes.symbols.dwarf.numbers import At, Form

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.symbols.dwarf.units import Information, Unit

MOST_FILES = 1 << 16
MOST_ROWS = 1 << 22
_NAME_OF, _PLACE_OF = 1, 2
_COPY, _ADVANCE, _LINE, _FILE, _NEGATE, _CONSTANT, _FIXED = 1, 2, 3, 4, 6, 8, 9
_END, _SET_ADDRESS = 1, 2
_FORM_SIZES = {Form.DATA1: 1, Form.DATA2: 2, Form.DATA4: 4, Form.DATA8: 8, Form.DATA16: 16}


@dataclass(frozen=True, slots=True)
class Head:
    """What a line program begins with: *files* are paths by number, the instructions lie from *start* to *end*."""

    files: tuple[str, ...]
    start: int
    end: int
    step: int
    default_is_stmt: bool
    line_base: int
    line_range: int
    opcode_base: int
    lengths: bytes


class Row(NamedTuple):
    """The code from *address* to *end* came from *line* of file number *file*; *is_stmt*: a statement begins there."""

    address: int
    end: int
    file: int
    line: int
    is_stmt: bool


def read_head(unit: Unit) -> Head | None:
    """Return the head of the line program of *unit*, None where it has none.

    Raises:
        FormatError, IndexError, ValueError: it is malformed.
    """
    home = unit.home
    owner = home.skeletons.get(unit.offset) or home.root(unit)
    at = owner.number(At.STMT_LIST)
    if at is None:
        return None
    home = owner.unit.home
    data = home.section(".debug_line")
    width = 4
    length = int.from_bytes(data[at : at + 4], "little")
    at += 4
    if length == 0xFFFFFFFF:
        length, at, width = int.from_bytes(data[at : at + 8], "little"), at + 8, 8
    end = at + length
    version = int.from_bytes(data[at : at + 2], "little")
    if not 2 <= version <= 5 or end > len(data):
        raise FormatError(f"{home.sections.path}: a line program of version {version}")
    at += 4 if version == 5 else 2
    start = at + width + int.from_bytes(data[at : at + width], "little")
    at += width
    step = data[at]
    at += 2 if version >= 4 else 1
    is_stmt, line_base, line_range, opcode_base = data[at : at + 4]
    lengths = data[at + 4 : at + 3 + opcode_base]
    at += 3 + opcode_base
    base = owner.text(At.COMP_DIR)
    files = _new_files(home, owner.unit, data, at, width) if version == 5 else _old_files(data, at, owner.name)
    paths = tuple(f"{base}/{path}" if not path.startswith("/") else path for path in files)
    signed_base = line_base - 256 if line_base > 127 else line_base
    if not line_range or not opcode_base:
        raise FormatError(f"{home.sections.path}: a malformed line program")
    return Head(paths, start, end, step, bool(is_stmt), signed_base, line_range, opcode_base, lengths)


def _old_files(data: bytes, at: int, own: str) -> list[str]:
    directories = [""]
    while data[at]:
        end = data.index(b"\0", at)
        directories.append(_decoded(data[at:end]))
        at = end + 1
        if len(directories) > MOST_FILES:
            raise FormatError("a line program names too many directories")
    at += 1
    files = [own]  # numbers begin with 1
    while data[at]:
        end = data.index(b"\0", at)
        name = _decoded(data[at:end])
        directory, at = uleb(data, end + 1)
        _, at = uleb(data, at)
        _, at = uleb(data, at)
        files.append(_joined(directories, directory, name))
        if len(files) > MOST_FILES:
            raise FormatError("a line program names too many files")
    return files


def _new_files(home: Information, unit: Unit, data: bytes, at: int, width: int) -> list[str]:
    directories, at = _entries(home, unit, data, at, width)
    files, _ = _entries(home, unit, data, at, width)
    names = [name for name, _ in directories]
    return [_joined(names, directory, name) for name, directory in files]


def _entries(home: Information, unit: Unit, data: bytes, at: int, width: int) -> tuple[list[tuple[str, int]], int]:
    """Return (name, number of the directory) of each entry of the table at *at*, and where the table ends."""
    formats = []
    count, at = data[at], at + 1
    for _ in range(count):
        what, at = uleb(data, at)
        form, at = uleb(data, at)
        formats.append((what, form))
    count, at = uleb(data, at)
    if count > MOST_FILES or (count and not formats):
        raise FormatError("a line program names too many files")
    found = []
    for _ in range(count):
        name, directory = "", 0
        for what, form in formats:
            value, at = _value(home, unit, data, at, (form, width))
            if what == _NAME_OF and isinstance(value, str):
                name = value
            elif what == _PLACE_OF and isinstance(value, int):
                directory = value
        found.append((name, directory))
    return found, at


def _value(home: Information, unit: Unit, data: bytes, at: int, shape: tuple[int, int]) -> tuple[int | str, int]:
    form, width = shape
    if form == Form.STRING:
        end = data.index(b"\0", at)
        return _decoded(data[at:end]), end + 1
    if form in (Form.LINE_STRP, Form.STRP, Form.STRP_SUP):
        place = int.from_bytes(data[at : at + width], "little")
        return _decoded(home.string(unit, form, place)), at + width
    if form == Form.UDATA:
        return uleb(data, at)
    if form in _FORM_SIZES:
        size = _FORM_SIZES[Form(form)]
        return int.from_bytes(data[at : at + size], "little"), at + size
    if form == Form.BLOCK:
        size, at = uleb(data, at)
        return 0, at + size
    raise FormatError(f"a line program has values of the unknown form {form:#x}")


def _joined(directories: list[str], number: int, name: str) -> str:
    if name.startswith("/") or number >= len(directories) or not directories[number]:
        return name
    directory = directories[number]
    if not directory.startswith("/") and number and directories[0].startswith("/"):
        directory = f"{directories[0]}/{directory}"
    return f"{directory}/{name}"


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def rows(unit: Unit, head: Head) -> Iterator[Row]:
    """Return the rows of the line program of *unit* in its order; those of no line are left out.

    Raises:
        FormatError, IndexError: it is malformed.
    """
    owner = unit.home.skeletons.get(unit.offset)
    data = (owner.unit.home if owner else unit.home).section(".debug_line")
    machine = _Machine(data, head)
    at, previous = head.start, None
    for _ in range(MOST_ROWS):
        at = machine.run(at)
        if at < 0:
            return
        if previous is not None and previous[2]:
            yield Row(previous[0], max(machine.address, previous[0]), previous[1], previous[2], previous[3])
        previous = None
        if machine.is_end:
            machine.reset()
        else:
            previous = machine.address, machine.file, machine.line, machine.is_stmt
    raise FormatError("a line program has too many rows")


class _Machine:
    """The registers of a line program."""

    def __init__(self, data: bytes, head: Head) -> None:
        self.data = data
        self.head = head
        # what the instructions that make most rows do: (bytes of code, lines)
        self.specials = [
            (n // head.line_range * head.step, head.line_base + n % head.line_range)
            for n in range(256 - head.opcode_base)
        ]
        self.reset()

    def reset(self) -> None:
        """Begin a sequence."""
        self.address, self.file, self.line, self.is_stmt, self.is_end = 0, 1, 1, self.head.default_is_stmt, False

    def run(self, at: int) -> int:
        """Run from *at* on until a row is made; return where the rest begins, -1 where the program has ended."""
        data, base, end = self.data, self.head.opcode_base, self.head.end
        while at < end:
            opcode = data[at]
            at += 1
            if opcode >= base:
                code, lines = self.specials[opcode - base]
                self.address += code
                self.line += lines
                return at
            if opcode == _COPY:
                return at
            at = self._standard(opcode, at) if opcode else self._extended(at)
            if self.is_end:
                return at
        return -1

    def _extended(self, at: int) -> int:
        size, at = uleb(self.data, at)
        kind = self.data[at] if size else 0
        if kind == _END:
            self.is_end = True
        elif kind == _SET_ADDRESS:
            self.address = int.from_bytes(self.data[at + 1 : at + size], "little")
        return at + size

    def _standard(self, opcode: int, at: int) -> int:
        data, head = self.data, self.head
        if opcode == _LINE:
            value, at = sleb(data, at)
            self.line += value
        elif opcode == _NEGATE:
            self.is_stmt = not self.is_stmt
        elif opcode == _CONSTANT:
            self.address += self.specials[255 - head.opcode_base][0]
        elif opcode == _FIXED:
            self.address += int.from_bytes(data[at : at + 2], "little")
            at += 2
        elif opcode == _ADVANCE:
            value, at = uleb(data, at)
            self.address += value * head.step
        elif opcode == _FILE:
            self.file, at = uleb(data, at)
        else:
            for _ in range(head.lengths[opcode - 1]):
                _, at = uleb(data, at)
        return at
