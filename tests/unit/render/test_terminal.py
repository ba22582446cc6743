"""What a stream can show, and how wide text is."""

from __future__ import annotations

import io
import os
import pty

import pytest

from kprobes.render.number import about, data_size, grouped, percent, power, seconds
from kprobes.render.terminal import PLAIN, Terminal, clip, pad, width_of


def terminal_of(environment: dict[str, str], encoding: str = "utf-8") -> Terminal:
    """Return what a real terminal (a pseudo terminal's far side) is taken for."""
    near, far = pty.openpty()
    try:
        with os.fdopen(far, "w", encoding=encoding) as stream:
            return Terminal.of(stream, environment)
    finally:
        os.close(near)


def test_a_file_is_plain_whatever_the_environment_says() -> None:
    assert Terminal.of(io.StringIO(), {"TERM": "xterm-256color", "COLORTERM": "truecolor"}) == PLAIN


def test_columns_sets_the_width_of_a_file() -> None:
    assert Terminal.of(io.StringIO(), {"COLUMNS": "120"}).width == 120
    for nonsense in ("", "x", "-5", "²", "9" * 30):
        assert Terminal.of(io.StringIO(), {"COLUMNS": nonsense}).width == 80


def test_a_terminal_has_colour_blocks_and_is_live() -> None:
    found = terminal_of({"TERM": "xterm"})
    assert (found.color, found.live, found.blocks) == (True, True, True)


def test_no_color_is_respected_but_an_empty_one_is_none() -> None:
    assert not terminal_of({"TERM": "xterm", "NO_COLOR": "1"}).color
    assert terminal_of({"TERM": "xterm", "NO_COLOR": ""}).color


def test_a_dumb_terminal_gets_neither_colour_nor_redrawing() -> None:
    for environment in ({"TERM": "dumb"}, {}):
        found = terminal_of(environment)
        assert (found.color, found.live, found.blocks) == (False, False, False)


def test_a_terminal_that_is_not_utf8_gets_no_blocks() -> None:
    assert not terminal_of({"TERM": "xterm"}, "ascii").blocks


def test_painting_needs_colour() -> None:
    assert PLAIN.paint("x", "red") == "x"
    assert Terminal(color=True).paint("x", "red") == "\x1b[1;31mx\x1b[0m"
    assert Terminal(color=True).paint("", "red") == ""


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("日本", 4), ("é", 1), ("e\u0301", 1), ("", 0), ("🐍", 2)])
def test_width_counts_columns(text: str, columns: int) -> None:
    assert width_of(text) == columns


def test_padding_and_clipping_count_columns() -> None:
    assert pad("日本", 6) == "日本  "
    assert pad("日本", 6, right=True) == "  日本"
    assert pad("long", 2) == "long"
    assert clip("abcdef", 4) == "abc~"
    assert clip("日本語", 4) == "日~"
    assert clip("abcd", 4) == "abcd"


def test_numbers_for_people() -> None:
    assert grouped(1234567) == "1,234,567"
    assert [power(n) for n in (0, 512, 1024, 1025, 65536, 2**20, -(2**30), 2**63)] == [
        *("0", "512", "1K", "1025", "64K", "1M", "-1G", "8E")
    ]
    assert [about(n) for n in (0.0, 0.12345, 12.345, 99.99, 123.4, 45678.9, 1e20)] == [
        *("0", "0.123", "12.3", "100", "123", "45,679", "1e+20")
    ]
    assert [data_size(n) for n in (0, 999, 1000, 1500, 999_960, 32_100_000, 5e12)] == [
        *("0 B", "999 B", "1.0 KB", "1.5 KB", "1.0 MB", "32.1 MB", "5000.0 GB")
    ]
    assert [seconds(n) for n in (0, 0.5, 9.999, 12.34, 99.96, 125)] == [
        *("0.00 s", "0.50 s", "10.0 s", "12.3 s", "1 min 40 s", "2 min 5 s")
    ]
    assert [percent(*n) for n in ((0, 0), (0, 5), (1, 3), (1, 5000), (5, 5))] == [
        *("0.0%", "0.0%", "33.3%", "<0.1%", "100.0%")
    ]
