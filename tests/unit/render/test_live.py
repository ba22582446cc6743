"""Regions that are redrawn, and progress."""

from __future__ import annotations

import io
import re
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


class Screen:
    """What a terminal shows, scrolled-out lines included: knows the few sequences that a region uses, no others."""

    def __init__(self, height: int, width: int) -> None:
        self.lines = [""]
        self.row = self.column = 0
        self.height, self.width = height, width
        self.wraps = True
        self.is_full = False  # the cursor stands on the last column, which is written

    def feed(self, text: str) -> None:
        for part in re.findall(r"\x1b\[\??\d*[A-Za-z]|[^\x1b]", text):
            if len(part) == 1 and part not in "\r\n":
                self.put(part)
                continue
            self.is_full = False
            self.obey(part)

    def put(self, char: str) -> None:
        if self.is_full and self.wraps:
            self.obey("\n")
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + char + line[self.column + 1 :]
        self.is_full = self.column == self.width - 1
        self.column += not self.is_full

    def obey(self, part: str) -> None:
        if part == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif part == "\r":
            self.column = 0
        elif part in ("\x1b[?7l", "\x1b[?7h"):
            self.wraps = part.endswith("h")
        elif part == "\x1b[2K":
            self.lines[self.row] = ""
        elif part == "\x1b[J":
            assert self.row > max(0, len(self.lines) - self.height), "a whole screen is never cleared"
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        else:
            assert part.endswith("A"), part
            self.row = max(self.row - int(part[2:-1]), len(self.lines) - self.height, 0)


def screen_of(stream: io.StringIO) -> list[str]:
    screen = Screen(LIVE.height, LIVE.width)
    screen.feed(stream.getvalue())
    return [line.rstrip() for line in screen.lines]


def test_on_a_terminal_each_state_takes_the_place_of_the_one_before() -> None:
    stream = io.StringIO("$ command\n")
    stream.seek(0, io.SEEK_END)
    with LiveRegion(stream, LIVE) as region:
        region.update("one\ntwo two\nthree\n")
        assert screen_of(stream) == ["$ command", "one", "two two", "three", ""]
        region.update("uno\ndos\n")
        assert screen_of(stream) == ["$ command", "uno", "dos", ""]
        region.update("1\n2\n3\n4\n")
        assert screen_of(stream) == ["$ command", "1", "2", "3", "4", ""]
    assert screen_of(stream) == ["$ command", "1", "2", "3", "4", ""]


def test_what_the_terminal_echoes_is_wiped() -> None:
    stream = io.StringIO()
    with LiveRegion(stream, LIVE) as region:
        region.update("one\ntwo\n")
        stream.write("^C")
        region.update("three\n")
        stream.write("^C")
    assert screen_of(stream) == ["three", ""]


def test_a_tall_picture_is_cut_while_it_is_live_and_stays_whole_at_the_end() -> None:
    stream = io.StringIO()
    tall = [f"line {n}" for n in range(50)]
    with LiveRegion(stream, LIVE) as region:
        for _ in range(3):
            region.update("".join(f"{line}\n" for line in tall))
            assert screen_of(stream) == [*tall[: LIVE.height - 2], "...", ""]
    assert screen_of(stream) == [*tall, ""]


def test_a_line_that_is_too_wide_never_wraps_while_it_is_live() -> None:
    stream = io.StringIO()
    with LiveRegion(stream, LIVE) as region:
        for _ in range(3):
            region.update("x" * (LIVE.width + 40) + "\nnext\n")
            assert screen_of(stream)[1:] == ["next", ""]
        region.update("y" * LIVE.width + "\nnext\n")
        assert screen_of(stream) == ["y" * LIVE.width, "next", ""]


def test_an_error_inside_leaves_the_last_state() -> None:
    stream = io.StringIO()
    region = LiveRegion(stream, PLAIN)
    region.update("so far\n")
    with pytest.raises(KeyboardInterrupt), region:
        raise KeyboardInterrupt
    assert stream.getvalue() == "so far\n"


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
