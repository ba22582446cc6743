"""Histograms as text: a line for each bucket, with its share and a bar."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from kprobes.render.escape import escape
from kprobes.render.number import about, grouped, percent, power
from kprobes.render.terminal import PLAIN, Terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEAST_BAR, _WIDEST_BAR = 10, 60
_BLOCK = "█"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LONGEST_GAP = 4

Row = tuple[int | None, int | None, int]


@dataclass(frozen=True, slots=True)
class Picture:
    """What to draw: *rows* are (low, high, count) of neighbouring buckets, low <= value < high, None for an open side.

    *marks* are (name, value) to show above, such as mean and p99. *title* may be any text, *unit* a short word.
    *powers*: the bounds are powers of two, and labelled 1K, 2M.
    """

    rows: Sequence[Row]
    title: str = ""
    unit: str = ""
    marks: Sequence[tuple[str, float]] = ()
    powers: bool = True


def histogram(picture: Picture, terminal: Terminal = PLAIN) -> str:
    """Return *picture* as text that ends with a line break."""
    total = sum(count for _, _, count in picture.rows)
    lines = [_heading(picture, total, terminal)]
    if total:
        lines += _bars(picture, total, terminal)
    return "".join(f"{line}\n" for line in lines)


def histograms(pictures: Sequence[Picture], terminal: Terminal = PLAIN, *, most: int = 0) -> str:
    """Return *pictures* one below the other, an empty line between them; with *most*, only so many."""
    shown = pictures[:most] if most else pictures
    text = "\n".join(histogram(picture, terminal) for picture in shown)
    hidden = len(pictures) - len(shown)
    return f"{text}\n({grouped(hidden)} more with fewer values not shown)\n" if hidden else text


def _heading(picture: Picture, total: int, terminal: Terminal) -> str:
    unit = f" {escape(picture.unit)}" if picture.unit else ""
    said = [f"{name} ~{about(value)}{unit}" for name, value in picture.marks]
    head = f"{grouped(total)} {'value' if total == 1 else 'values'}" if total else "no values"
    title = terminal.paint(escape(picture.title), "bold")
    return "   ".join(part for part in (title, ", ".join([head, *said])) if part)


def _bars(picture: Picture, total: int, terminal: Terminal) -> list[str]:
    cells = [
        ("...", "", "", 0)
        if row is None
        else (_label(row, picture.powers), grouped(row[2]), percent(row[2], total), row[2])
        for row in _shortened(picture.rows)
    ]
    label_width, count_width, share_width = (max(len(str(cell[index])) for cell in cells) for index in range(3))
    room = terminal.width - label_width - count_width - share_width - 7
    room = max(_LEAST_BAR, min(room, _WIDEST_BAR))
    most = max(count for _, _, _, count in cells)
    return [
        f"{label:>{label_width}}  {shown:>{count_width}}  {share:>{share_width}} {_bar(count, most, room, terminal)}"
        if shown
        else f"{label:>{label_width}}"
        for label, shown, share, count in cells
    ]


def _shortened(rows: Sequence[Row]) -> list[Row | None]:
    """Return *rows* with each longer stretch of empty ones replaced by a single None."""
    short: list[Row | None] = []
    for is_empty, group in groupby(rows, key=lambda row: not row[2]):
        stretch = list(group)
        short += [None] if is_empty and len(stretch) > _LONGEST_GAP else stretch
    return short


def _label(row: Row, powers: bool) -> str:
    low, high, _ = row
    show = power if powers else str
    if low is None:
        return "all" if high is None else f"< {show(high)}"
    if high is None:
        return f">= {show(low)}"
    return show(low) if high == low + 1 else f"[{show(low)}, {show(high)})"


def _bar(count: int, most: int, room: int, terminal: Terminal) -> str:
    if not terminal.blocks:
        return f"|{'@' * (count * room // most):<{room}}|"
    eighths = max(count * room * 8 // most, 1 if count else 0)
    bar = _BLOCK * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    return terminal.paint(bar, "cyan")
