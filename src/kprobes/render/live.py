"""A region of the terminal that is redrawn in place; on anything else, only its last state is written.

Each picture ends below its last line, so that what the terminal echoes there (`^C`) is wiped by the next one. Lines
are cut at the edge by the terminal itself (autowrap off): a wrapped one would take two lines and spoil the way back up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from kprobes.render.terminal import Terminal

if TYPE_CHECKING:
    from types import TracebackType

_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"
# Lines are erased before they are written: behind a full line the cursor still stands on its last column. The first
# line is never erased together with all below, since some terminals keep a screen that is cleared in their history.
_ERASE_LINE, _ERASE_BELOW = "\x1b[2K", "\x1b[J"
_WIPE = f"{_ERASE_LINE}\n{_ERASE_BELOW}\x1b[1A"


class LiveRegion:
    """Shows text on *stream* and replaces it with each `update`.

    A context manager: at its end the last text stays. Text is already escaped and may carry our own colours. Without
    a *terminal* the stream is asked each time, since its size may change.
    """

    def __init__(self, stream: TextIO, terminal: Terminal | None = None) -> None:
        self._stream = stream
        self._fixed = terminal
        self._last = ""
        self._height = 0  # lines that are on the screen now
        self._is_open = True

    @property
    def terminal(self) -> Terminal:
        """Return what the stream can show now."""
        return Terminal.of(self._stream) if self._fixed is None else self._fixed

    def update(self, text: str) -> None:
        """Show *text*, which ends with a line break, in place of what is shown; cut where the terminal ends."""
        self._last = text
        terminal = self.terminal
        if not (self._is_open and terminal.live):
            return
        lines = text.splitlines()
        if len(lines) >= terminal.height:
            lines = [*lines[: max(terminal.height - 2, 0)], "..."]
        self._write("".join([_WRAP_OFF, *(f"{_ERASE_LINE}{line}\n" for line in lines), _ERASE_BELOW, _WRAP_ON]))
        self._height = len(lines)

    def close(self) -> None:
        """Leave the last text on the stream, whole even where it was taller than the terminal; idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        self._write(_WIPE + self._last if self._height else self._last)

    def __enter__(self) -> LiveRegion:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, text: str) -> None:
        """Write *text* from the region's first line on."""
        self._stream.write(f"\r\x1b[{self._height}A{text}" if self._height else text)
        self._stream.flush()
