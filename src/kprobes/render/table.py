"""Trace lines: a table that is written while its rows come in.

Widths are fixed by the first rows, so that columns stand still. A cell that is too wide is shown whole; the cells
behind it give up their padding until the columns are back in place.
"""

from __future__ import annotations

from kprobes.frozen import dataclass
from kprobes.render.escape import escape
from kprobes.render.terminal import PLAIN, Terminal, width_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, TextIO

    Show = Callable[[Any], str]

# Least widths, so that columns need not grow when the first rows happen to be narrow.
_LEAST = {"time": 10, "int": 6, "uint": 6, "hex": 18, "symbol": 18, "str": 8, "ipv4": 15}
_WIDEST = 40
_RIGHT = frozenset({"int", "uint", "time"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its *name*, which is its heading (a word in capitals), and *kind*.

    Kinds: `str`, `int`, `uint`, `hex` and `symbol` (numbers in hexadecimal, or text), `time` (nanoseconds since the
    start, shown in seconds); any other is shown by `str`. *width* is the least width, 0 for that of the kind.
    """

    name: str
    kind: str = "str"
    width: int = 0


class TraceTable:
    """Writes rows to *stream*: the heading with the first, each as one line.

    With *heading* off only rows are written.
    """

    def __init__(
        self, stream: TextIO, columns: Sequence[Column], terminal: Terminal = PLAIN, *, heading: bool = True
    ) -> None:
        """Prepare for *columns*, at least one."""
        self._stream = stream
        self._columns = tuple(columns)
        self._terminal = terminal
        self._heading = heading
        self._titles = [_title(column.name) for column in columns]
        self._shows = [_SHOW.get(column.kind, _show_any) for column in columns]
        self._widths: list[int] = []
        self._template = ""
        self._fixed = 0

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write *rows*, each with a value for every column (None is shown as `-`)."""
        lines = [self._cells(row) for row in rows]
        if not self._widths:
            if not lines:
                return
            self._begin(lines)
        self._stream.write("".join([f"{self._line(cells)}\n" for cells in lines]))

    def write_lines(self, lines: Iterable[str]) -> None:
        """Write *lines* (a stack, innermost first) indented below the last row."""
        self._stream.write("".join([f"        {escape(line)}\n" for line in lines]))

    def finish(self) -> None:
        """Write the heading if no row came."""
        if not self._widths:
            self._begin([])

    def _cells(self, row: Sequence[Any]) -> tuple[str, ...]:
        return tuple(["-" if value is None else show(value) for show, value in zip(self._shows, row, strict=True)])

    def _begin(self, lines: Sequence[Sequence[str]]) -> None:
        for index, column in enumerate(self._columns):
            least = column.width or _LEAST.get(column.kind, 1)
            needed = max((width_of(cells[index]) for cells in lines), default=0)
            self._widths.append(max(least, width_of(self._titles[index]), min(needed, _WIDEST)))
        if not self._is_right(-1):
            self._widths[-1] = 0  # nothing follows: no padding
        self._fixed = sum(self._widths[:-1]) + len(self._widths) - 1
        self._template = " ".join(
            f"{{:{'>' if self._is_right(index) else '<'}{width}}}" if width else "{}"
            for index, width in enumerate(self._widths)
        )
        if self._heading:
            self._stream.write(self._terminal.paint(self._line(self._titles), "bold") + "\n")

    def _is_right(self, index: int) -> bool:
        return self._columns[index].kind in _RIGHT

    def _line(self, cells: Sequence[str]) -> str:
        line = self._template.format(*cells)
        if line.isascii() and len(line) == self._fixed + max(self._widths[-1], len(cells[-1])):
            return line
        return self._uneven_line(cells)

    def _uneven_line(self, cells: Sequence[str]) -> str:
        """Return the line of cells of which some are wider than their column, or not as wide as they are long."""
        line = ""
        used = start = 0
        for index, cell in enumerate(cells):
            width = width_of(cell)
            begin = start + self._widths[index] - width if self._is_right(index) else start
            gap = max(begin - used, 1 if index else 0)
            line += " " * gap + cell
            used += gap + width
            start += self._widths[index] + 1
        return line


def _title(name: str) -> str:
    """Return the heading of a column: a word in capitals, an expression as it was written."""
    return name.upper() if name.isidentifier() else escape(name)


def _show_time(nanoseconds: int) -> str:
    return f"{nanoseconds // 1_000_000_000}.{nanoseconds % 1_000_000_000 // 1000:06d}"


def _show_hex(number: Any) -> str:
    return f"0x{number:x}" if isinstance(number, int) else escape(str(number))


def _show_symbol(address: Any) -> str:
    return _show_hex(address) if type(address) is int else escape(str(address))


def _show_any(value: object) -> str:
    return escape(str(value))


_SHOW: dict[str, Show] = {
    "int": int.__repr__,
    "uint": int.__repr__,
    "hex": _show_hex,
    "symbol": _show_symbol,
    "symstr": _show_symbol,
    "ipv4": _show_any,
    "cgroup": _show_any,
    "time": _show_time,
    "str": escape,
}
