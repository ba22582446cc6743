"""How far a download is: a bar on a terminal, two plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

from kprobes.render.escape import escape
from kprobes.render.number import data_size, seconds
from kprobes.render.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_REDRAW_S = 0.1
_WIDEST_BAR = 30


class Progress:
    """Shows the progress of *what* on *stream*; a context manager. `update` may be called as often as one likes.

    *clock* returns seconds.
    """

    def __init__(
        self,
        what: str,
        stream: TextIO,
        terminal: Terminal | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = escape(what)
        self._stream = stream
        self._terminal = Terminal.of(stream) if terminal is None else terminal
        self._clock = clock
        self._begin = clock()
        self._drawn = float("-inf")
        self._done = self._total = 0
        self._is_open = True
        if not self._terminal.live:
            self._write(f"{self._what} ...\n")

    def update(self, done: int, total: int = 0) -> None:
        """Say that *done* bytes of *total* (0: not known) are there."""
        self._done, self._total = done, total
        now = self._clock()
        if self._is_open and self._terminal.live and now - self._drawn >= _REDRAW_S:
            self._drawn = now
            self._write(f"\r{self._line(now - self._begin)}\x1b[K")

    def close(self, *, failed: bool = False) -> None:
        """Take the bar away and leave one line: what was had and how long it took, or that it broke off; idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        end = "broke off after" if failed else "done:"
        size = data_size(self._done) if self._done else "nothing"
        line = f"{self._what} {end} {size} in {seconds(self._clock() - self._begin)}\n"
        self._write(f"\r\x1b[K{line}" if self._terminal.live else line)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=error is not None)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _line(self, elapsed_s: float) -> str:
        rate = self._done / elapsed_s if elapsed_s > 0 else 0.0
        speed = f"{data_size(rate)}/s"
        if not self._total:
            return f"{self._what}  {data_size(self._done)}  {speed}"[: self._terminal.width - 1]
        share = min(self._done / self._total, 1.0)
        left = seconds((self._total - self._done) / rate) if rate and self._done < self._total else "-"
        numbers = f"{share:4.0%}  {data_size(self._done)} of {data_size(self._total)}  {speed}  {left} left"
        room = min(self._terminal.width - len(self._what) - len(numbers) - 8, _WIDEST_BAR)
        if room < 5:
            return f"{self._what} {numbers}"[: self._terminal.width - 1]
        return f"{self._what}  [{'#' * int(share * room):<{room}}] {numbers}"
