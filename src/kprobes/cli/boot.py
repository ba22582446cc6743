"""What the user sees while a guest is made ready: downloads with a bar, the first boot with a line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kprobes.render.progress import Progress


class _Bars:
    """One bar at a time; a new topic closes the one before."""

    def __init__(self) -> None:
        self._what = ""
        self._bar: Progress | None = None

    def show(self, what: str, done: int, total: int) -> None:
        """Show that *done* bytes of *total* of *what* are there; an end is when they are equal."""
        from kprobes.render.progress import Progress

        if what != self._what:
            self.close()
            self._what = what
            self._bar = Progress(what, sys.stderr)
        if self._bar is not None:
            self._bar.update(done, total)
            if total and done >= total:
                self.close()

    def close(self) -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def make_progress() -> _Bars:
    """Return bars on standard error."""
    return _Bars()


def show_progress(what: str, done: int, total: int) -> None:
    """Show progress of *what* on standard error."""
    _BARS.show(what, done, total)


_BARS = make_progress()
