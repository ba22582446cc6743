"""Errors and warnings with the line they are about."""

from __future__ import annotations

from dataclasses import dataclass

from kprobes.render.escape import escape, escape_lines
from kprobes.render.terminal import PLAIN, Terminal, clip, width_of

# So much of a long line is shown from its marked part on.
_CONTEXT = 30


@dataclass(frozen=True, slots=True)
class SourcePlace:
    """A place in a text: *line* counts from 1, *column* from 0; *text* is that line, *length* what is underlined."""

    file: str
    line: int
    column: int
    text: str = ""
    length: int = 1


def problem(
    message: str,
    terminal: Terminal = PLAIN,
    *,
    place: SourcePlace | None = None,
    calls: tuple[str, ...] = (),
    hint: str = "",
    severity: str = "error",
) -> str:
    """Return *message* with its place, the source line and a caret under it, and a hint; it ends with a line break.

    *calls* say how the place is reached. *severity* is `error`, `warning` or `note`; *message* and *hint* may
    have several lines.
    """
    style = {"error": "red", "warning": "yellow"}.get(severity, "cyan")
    head, *more = escape_lines(message).split("\n")
    lines = [f"{terminal.paint(f'{severity}:', style)} {terminal.paint(head, 'bold')}"]
    lines += [f"  {line}" for line in more]
    if place is not None:
        lines += _excerpt(place, terminal, style)
    lines += [f"  {escape(call)}" for call in calls]
    if hint:
        first, *others = escape_lines(hint).split("\n")
        lines.append(f"{terminal.paint('hint:', 'green')} {first}")
        lines += [f"      {line}" for line in others]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _excerpt(place: SourcePlace, terminal: Terminal, style: str) -> list[str]:
    number = str(place.line)
    gutter = " " * len(number)
    edge = terminal.paint("|", "dim")
    lines = [f"{gutter}{terminal.paint('-->', 'dim')} {escape(place.file)}:{place.line}:{place.column + 1}"]
    text = place.text.rstrip("\r\n")
    if not text.strip():
        return lines
    before, marked, after = _split(text, place.column, place.length)
    room = max(terminal.width - len(number) - 4, 20)
    cut = max(width_of(before) + min(width_of(marked + after), _CONTEXT) - room, 0)
    if cut:
        before = f"...{before[cut + 3 :]}"
    shown = clip(before + marked + after, room)
    caret = "^" * max(min(width_of(marked), room - width_of(before)), 1)
    return [
        *lines,
        f"{gutter} {edge}",
        f"{terminal.paint(number, 'dim')} {edge} {shown}",
        f"{gutter} {edge} {' ' * width_of(before)}{terminal.paint(caret, style)}",
    ]


def _split(text: str, column: int, length: int) -> tuple[str, str, str]:
    """Return *text* before, within and after the marked part, each escaped, tabs as four spaces."""
    column = min(max(column, 0), len(text))
    end = min(column + max(length, 1), len(text))
    parts = (text[:column], text[column:end], text[end:])
    before, marked, after = (escape(part.replace("\t", "    ")) for part in parts)
    return before, marked, after
