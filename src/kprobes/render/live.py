"""A region of the terminal that is redrawn in place; on anything else, only its last state is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from kprobes.render.terminal import Terminal

if TYPE_CHECKING:
    from types import TracebackType

    from rich.live import Live


class LiveRegion:
    """Shows text on *stream* and replaces it with each `update`.

    A context manager: at its end the last text stays. Text is already escaped and may carry our own colours.
    """

    def __init__(self, stream: TextIO, terminal: Terminal | None = None) -> None:
        self._stream = stream
        self.terminal = Terminal.of(stream) if terminal is None else terminal
        self._last = ""
        self._live: Live | None = None
        self._is_open = True

    def update(self, text: str) -> None:
        """Show *text*, which ends with a line break, in place of what is shown."""
        self._last = text
        if self._is_open and self.terminal.live:
            self._draw(text)

    def close(self) -> None:
        """Leave the last text on the stream, whole even where it was taller than the terminal; idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        if self._live is not None:
            self._live.stop()  # transient: takes its picture away
            self._live = None
        self._stream.write(self._last)
        self._stream.flush()

    def __enter__(self) -> LiveRegion:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _draw(self, text: str) -> None:
        # rich takes about 60 ms to import: the probes are already at work by the first update.
        from rich.text import Text

        content = Text.from_ansi(text.rstrip("\n"), no_wrap=True, overflow="crop")
        if self._live is None:
            self._live = _start(self._stream, self.terminal)
        self._live.update(content, refresh=True)


def _start(stream: TextIO, terminal: Terminal) -> Live:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=stream, force_terminal=True, no_color=not terminal.color, highlight=False, emoji=False)
    live = Live(
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        vertical_overflow="ellipsis",
    )
    live.start()
    return live
