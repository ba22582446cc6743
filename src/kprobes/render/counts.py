"""Counts by key as text: the largest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.render.escape import escape
from kprobes.render.number import about, grouped, percent
from kprobes.render.terminal import PLAIN, Terminal, clip, pad, width_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def counts(
    pairs: Iterable[tuple[str, int]],
    terminal: Terminal = PLAIN,
    *,
    titles: tuple[str, str] = ("FUNCTION", "HITS"),
    most: int = 0,
    elapsed_s: float = 0.0,
) -> str:
    """Return (key, count) *pairs* as a table, the largest first, with a total; it ends with a line break.

    *titles* are the headings of the key and of the count.

    With *most* only so many rows are shown and the others are summed up in one. With *elapsed_s* a rate is shown.
    """
    ranked = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    total = sum(count for _, count in ranked)
    shown = ranked[:most] if most and len(ranked) > most + 1 else ranked
    rest = ranked[len(shown) :]
    rows = [_row(escape(key), count, total, elapsed_s) for key, count in shown]
    if rest:
        rows.append(_row(f"({grouped(len(rest))} others)", sum(count for _, count in rest), total, elapsed_s))
    heading = (*titles, "SHARE", "PER SECOND")[: 4 if elapsed_s else 3]
    foot = _row(f"total ({grouped(len(ranked))})", total, total, elapsed_s)
    lines = _aligned([heading, *rows, *([foot] if len(ranked) != 1 else [])], terminal)
    lines[0] = terminal.paint(lines[0], "bold")
    return "".join(f"{line}\n" for line in lines)


def _row(key: str, count: int, total: int, elapsed_s: float) -> tuple[str, ...]:
    cells = (key, grouped(count), percent(count, total))
    return (*cells, about(count / elapsed_s)) if elapsed_s else cells


def _aligned(rows: Sequence[Sequence[str]], terminal: Terminal) -> list[str]:
    widths = [max(width_of(row[index]) for row in rows) for index in range(len(rows[0]))]
    room = terminal.width - sum(widths[1:]) - 2 * (len(widths) - 1)
    if terminal.live:  # only where people look is a long name cut
        widths[0] = min(widths[0], max(room, 16))
    lines = []
    for row in rows:
        name = clip(row[0], widths[0]) if terminal.live else row[0]
        numbers = [pad(cell, width, right=True) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([pad(name, widths[0]), *numbers]))
    return lines
