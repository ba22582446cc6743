"""Histograms as text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kprobes.render.histogram import Picture, Row, histogram, histograms
from kprobes.render.terminal import Terminal, width_of

NARROW = Terminal(width=60)
ROWS: list[Row] = [(None, 0, 1), (0, 1, 0), (1, 2, 40), (2, 4, 20), (4, 8, 5), (8, 16, 1934)]
MARKS = (("mean", 11.62), ("p50", 12.0), ("p99", 15.89))


def test_a_power_of_two_histogram() -> None:
    assert histogram(Picture(ROWS, "cat", "us", MARKS), NARROW).splitlines() == [
        "cat   2,000 values, mean ~11.6 us, p50 ~12 us, p99 ~15.9 us",
        "    < 0      1   0.1% |                                    |",
        "      0      0   0.0% |                                    |",
        "      1     40   2.0% |                                    |",
        " [2, 4)     20   1.0% |                                    |",
        " [4, 8)      5   0.2% |                                    |",
        "[8, 16)  1,934  96.7% |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|",
    ]


def test_bounds_that_are_powers_are_shortened() -> None:
    rows: list[Row] = [(512, 1024, 3), (1024, 2048, 1), (2**20, 2**21, 2), (2**63, 2**64, 1)]
    labels = [line.split("  ")[0].strip() for line in histogram(Picture(rows), NARROW).splitlines()[1:]]
    assert labels == ["[512, 1K)", "[1K, 2K)", "[1M, 2M)", "[8E, 16E)"]


def test_a_linear_histogram_is_labelled_in_full_and_leaves_out_long_gaps() -> None:
    gap: list[Row] = [(low, low + 10, 0) for low in range(1010, 1100, 10)]
    rows: list[Row] = [(None, 1000, 2), (1000, 1010, 4), *gap, (1100, None, 1)]
    assert histogram(Picture(rows, powers=False), NARROW).splitlines() == [
        "7 values",
        "      < 1000  2  28.6% |@@@@@@@@@@@@@@@@@                  |",
        "[1000, 1010)  4  57.1% |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|",
        "         ...",
        "     >= 1100  1  14.3% |@@@@@@@@                           |",
    ]


def test_blocks_are_drawn_where_the_terminal_has_them_and_nothing_is_invisible() -> None:
    lines = histogram(Picture([(1, 2, 800), (2, 4, 300), (4, 8, 1)]), Terminal(width=40, blocks=True)).splitlines()
    assert lines == [
        "1,101 values",
        "     1  800  72.7% ███████████████████",
        "[2, 4)  300  27.2% ███████▏",
        "[4, 8)    1   0.1% ▏",
    ]


def test_nothing_says_so() -> None:
    assert histogram(Picture([], "usecs")) == "usecs   no values\n"
    assert histogram(Picture([(0, 1, 0)])) == "no values\n"


def test_titles_are_escaped() -> None:
    assert "\x1b" not in histogram(Picture([(0, 1, 1)], "\x1b[2J", "\x1b"))


def test_several_have_an_empty_line_between_and_may_be_cut() -> None:
    pictures = [Picture([(0, 1, n)], f"key {n}") for n in (3, 2, 1)]
    text = histograms(pictures, NARROW, most=2)
    assert [line for line in text.splitlines() if "|" not in line] == [
        "key 3   3 values",
        "",
        "key 2   2 values",
        "",
        "(1 more with fewer values not shown)",
    ]


@given(st.lists(st.integers(0, 2**63), min_size=1, max_size=66), st.integers(60, 200), st.booleans())
def test_lines_fit_the_terminal(counts: list[int], width: int, blocks: bool) -> None:
    rows: list[Row] = [(2**n, 2 ** (n + 1), count) for n, count in enumerate(counts)]
    lines = histogram(Picture(rows), Terminal(width=width, blocks=blocks)).splitlines()
    assert all(width_of(line) <= width for line in lines)
