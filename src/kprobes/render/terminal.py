"""Where text goes: what a stream can show, and how wide text is on it."""

from __future__ import annotations

import os

from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

_FALLBACK_WIDTH, _FALLBACK_HEIGHT = 80, 24
_STYLES = {"bold": "1", "dim": "2", "red": "1;31", "yellow": "33", "green": "32", "cyan": "36"}


@dataclass(frozen=True, slots=True)
class Terminal:
    """What a stream can show. The default is a plain file: 80 columns, ASCII, no colour.

    *live*: text can be redrawn in place. *blocks*: the stream takes block characters.
    """

    width: int = _FALLBACK_WIDTH
    height: int = _FALLBACK_HEIGHT
    color: bool = False
    live: bool = False
    blocks: bool = False

    @classmethod
    def of(cls, stream: TextIO, environment: Mapping[str, str] | None = None) -> Terminal:
        """Return what *stream* can show; *environment* (default: the process's) has NO_COLOR, TERM and COLUMNS."""
        environment = os.environ if environment is None else environment
        if not stream.isatty():
            return cls(width=_number(environment, "COLUMNS") or _FALLBACK_WIDTH)
        encoding = (getattr(stream, "encoding", None) or "ascii").lower()
        try:
            columns, lines = os.get_terminal_size(stream.fileno())
        except (OSError, ValueError):
            columns, lines = 0, 0
        able = environment.get("TERM", "") not in ("", "dumb")
        return cls(
            width=columns or _number(environment, "COLUMNS") or _FALLBACK_WIDTH,
            height=lines or _FALLBACK_HEIGHT,
            color=able and not environment.get("NO_COLOR"),
            live=able,
            blocks=able and encoding.startswith("utf"),
        )

    def paint(self, text: str, style: str) -> str:
        """Return *text* in *style* (bold, dim, red, yellow, green, cyan) where there is colour."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.color and text else text


PLAIN = Terminal()


def width_of(text: str) -> int:
    """Return how many columns escaped *text* takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Return *text* filled with spaces to *width* columns; with *right* they come first."""
    space = " " * (width - width_of(text))
    return space + text if right else text + space


def clip(text: str, width: int) -> str:
    """Return *text*, its end replaced by `~` where it takes more than *width* columns."""
    if width_of(text) <= width:
        return text
    kept = ""
    used = 0
    for char in text:
        used += width_of(char)
        if used > width - 1:
            break
        kept += char
    return kept + "~"


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 6 else 0
