"""What commands with a picture share: it is drawn live on a terminal, and whole at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

from kprobes.cli.follow import Job, follow
from kprobes.cli.pictures import picture_of, write_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.cli.parser import Namespace
    from kprobes.model.mapspec import Histogram
    from kprobes.model.probe import Probe
    from kprobes.render.terminal import Terminal
    from kprobes.session import Session

REDRAW_S = 0.5
LIVE_PICTURES = 3


def picture_job(stream: TextIO, draw: Callable[[Terminal, bool], str]) -> Job:
    """Return a job that shows `draw(terminal, live)` now and then while *stream* is a terminal, and once at the end."""
    from kprobes.render.live import LiveRegion
    from kprobes.render.terminal import Terminal

    region = LiveRegion(stream, Terminal.of(stream))
    drawn = time.monotonic()

    def on_tick(_session: Session) -> None:
        nonlocal drawn
        if region.terminal.live and time.monotonic() - drawn >= REDRAW_S:
            drawn = time.monotonic()
            region.update(draw(region.terminal, True))

    def on_end(_session: Session) -> None:
        region.update(draw(region.terminal, False))
        region.close()

    return Job(_ignore, on_tick, on_end)


def follow_histogram(arguments: Namespace, probes: Sequence[Probe], values: Histogram, unit: str) -> int:
    """Carry *probes* out, and show *values* live and at the end."""

    def make_job(session: Session, stream: TextIO) -> Job:
        if arguments.format == "json":
            return Job(_ignore, on_end=lambda _: write_value(values.name, session[values], stream, as_json=True))
        return picture_job(
            stream,
            lambda terminal, live: picture_of(
                values.name, session[values], terminal, unit=unit, most=LIVE_PICTURES if live else 0
            ),
        )

    return follow(arguments, probes, make_job)


def _ignore(_events: object) -> None:
    return
