"""Regions that are redrawn, and progress."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from kprobes.render.live import LiveRegion
from kprobes.render.progress import Progress
from kprobes.render.terminal import PLAIN, Terminal

LIVE = Terminal(width=60, height=10, color=True, live=True)


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_on_a_file_only_the_last_state_is_written() -> None:
    stream = io.StringIO()
    with LiveRegion(stream, PLAIN) as region:
        region.update("one\n")
        region.update("two\n")
        assert stream.getvalue() == ""
    region.close()
    assert stream.getvalue() == "two\n"


def test_without_an_update_nothing_is_written() -> None:
    stream = io.StringIO()
    with LiveRegion(stream, LIVE):
        pass
    assert stream.getvalue() == ""


def test_on_a_terminal_each_state_is_drawn_and_the_last_one_stays_whole() -> None:
    stream = io.StringIO()
    tall = "".join(f"line {n}\n" for n in range(50))
    with LiveRegion(stream, LIVE) as region:
        region.update("first\n")
        assert "first" in stream.getvalue()
        region.update(tall)
    assert stream.getvalue().endswith(tall)


def test_an_error_inside_leaves_the_last_state() -> None:
    stream = io.StringIO()
    region = LiveRegion(stream, PLAIN)
    region.update("so far\n")
    with pytest.raises(KeyboardInterrupt), region:
        raise KeyboardInterrupt
    assert stream.getvalue() == "so far\n"


def test_what_is_drawn_is_taken_literally() -> None:
    stream = io.StringIO()
    with LiveRegion(stream, LIVE) as region:
        region.update("[bold]vfs_read[/bold] :smile:\n")
        assert "[bold]vfs_read[/bold] :smile:" in stream.getvalue()


def test_no_heavy_library_is_imported_with_the_rooms_of_the_hot_path() -> None:
    rooms = "kprobes.render.table, kprobes.render.summary, kprobes.render.live, kprobes.render.histogram"
    code = f"import sys, {rooms}, kprobes.events.decode, kprobes.events.aggregate\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"rich", "pyarrow", "json", "asyncio", "subprocess", "llvmlite", "unicodedata"} & set(loaded)


def test_progress_on_a_file_is_two_plain_lines() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress("downloading linux-6.12", stream, PLAIN, clock=clock) as progress:
        for done in range(0, 30_000_001, 10_000_000):
            clock.now += 0.5
            progress.update(done, 30_000_000)
    assert stream.getvalue() == "downloading linux-6.12 ...\ndownloading linux-6.12 done: 30.0 MB in 2.00 s\n"


def test_progress_on_a_terminal_draws_a_bar_that_fits_and_is_taken_away() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress("linux", stream, Terminal(width=80, live=True), clock=clock) as progress:
        clock.now = 1.0
        progress.update(5_000_000, 20_000_000)
    bar, end = stream.getvalue().split("\x1b[K")[0], stream.getvalue().split("\x1b[K")[-1]
    assert bar == "\rlinux  [#####                ]  25%  5.0 MB of 20.0 MB  5.0 MB/s  3.00 s left"
    assert len(bar) <= 80
    assert end == "linux done: 5.0 MB in 1.00 s\n"


def test_progress_is_not_drawn_more_than_ten_times_a_second() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress("x", stream, LIVE, clock=clock)
    for _ in range(1000):
        clock.now += 0.001
        progress.update(1)
    assert 5 <= stream.getvalue().count("\r") <= 11


def test_a_size_that_is_not_known_and_a_narrow_terminal_are_fine() -> None:
    for width in (10, 30, 200):
        stream, clock = io.StringIO(), Clock()
        progress = Progress("downloading", stream, Terminal(width=width, live=True), clock=clock)
        clock.now = 1.0
        progress.update(123, 0)
        clock.now = 2.0
        progress.update(1234, 4000)
        assert all(len(part.strip("\r")) < width for part in stream.getvalue().split("\x1b[K"))


def test_a_download_that_breaks_off_says_so() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress("x", stream, PLAIN, clock=clock)
    progress.update(1000, 2000)
    with pytest.raises(OSError, match="gone"), progress:
        raise OSError("gone")
    assert stream.getvalue().splitlines()[-1] == "x broke off after 1.0 KB in 0.00 s"
