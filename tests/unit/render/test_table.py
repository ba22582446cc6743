"""Trace lines."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from kprobes.render.table import Column, TraceTable
from kprobes.render.terminal import Terminal, width_of

COLUMNS = [Column("time", "time"), Column("pid", "int"), Column("comm"), Column("function"), Column("file")]


def written(columns: list[Column], *batches: list[tuple[object, ...]], heading: bool = True) -> list[str]:
    stream = io.StringIO()
    table = TraceTable(stream, columns, heading=heading)
    for batch in batches:
        table.write(batch)
    table.finish()
    return stream.getvalue().splitlines()


def test_rows_stand_under_their_headings() -> None:
    rows = [(1_234_567, 42, "cat", "vfs_read", "/etc/passwd"), (2_000_000_000, 7, "make", "vfs_write", "a.o")]
    assert written(COLUMNS, rows) == [
        "      TIME    PID COMM     FUNCTION  FILE",
        "  0.001234     42 cat      vfs_read  /etc/passwd",
        "  2.000000      7 make     vfs_write a.o",
    ]


def test_widths_stay_as_the_first_rows_made_them() -> None:
    lines = written(COLUMNS, [(0, 1, "cat", "vfs_read", "x")], [(0, 2, "a-long-program", "vfs_read", "y")])
    assert lines[1:] == [
        "  0.000000      1 cat      vfs_read x",
        "  0.000000      2 a-long-program vfs_read y",
    ]


def test_after_a_wide_cell_the_columns_come_back_in_place() -> None:
    columns = [Column("a"), Column("b", "str", 12), Column("n", "int"), Column("c")]
    lines = written(columns, [("x", "y", 1, "z")], [("x" * 12, "y", 23, "z")])
    assert lines == [
        "A        B                 N C",
        "x        y                 1 z",
        "xxxxxxxxxxxx y            23 z",
    ]


def test_wide_characters_take_two_columns() -> None:
    columns = [Column("comm"), Column("pid", "int")]
    assert written(columns, [("日本", 1), ("cat", 2)]) == [
        "COMM        PID",
        "日本          1",
        "cat           2",
    ]


def test_kinds_are_shown_as_they_are_read() -> None:
    kinds = [*(Column(kind, kind) for kind in ("hex", "symbol", "uint", "bool")), Column("last", "int")]
    row = (0xFFFF888000001000, "vfs_read+0x4", 2**64 - 1, True, None)
    assert written(kinds, [row])[1].split() == ["0xffff888000001000", "vfs_read+0x4", str(2**64 - 1), "True", "-"]
    assert written(kinds, [(1, 0x1F, 1, None, -5)])[1].split() == ["0x1", "0x1f", "1", "-", "-5"]


def test_text_and_headings_are_escaped() -> None:
    lines = written([Column("a\x1b[0m"), Column("b", "any")], [("\x1b[31m", "x\ny")])
    assert lines == ["a\\x1b[0m B", "\\x1b[31m x\\ny"]


def test_stack_lines_are_indented_and_escaped() -> None:
    stream = io.StringIO()
    table = TraceTable(stream, [Column("pid", "int")])
    table.write([(1,)])
    table.write_lines(["vfs_read+0x0", "ev\x1bil"])
    assert stream.getvalue().splitlines()[2:] == ["        vfs_read+0x0", "        ev\\x1bil"]


def test_the_heading_is_written_once_even_without_rows_and_can_be_left_out() -> None:
    assert written([Column("pid", "int"), Column("comm")]) == ["   PID COMM"]
    assert written([Column("comm")], [], [("a",)], [("b",)]) == ["COMM", "a", "b"]
    assert written([Column("comm")], [("a",)], heading=False) == ["a"]


def test_the_heading_is_bold_where_there_is_colour() -> None:
    stream = io.StringIO()
    TraceTable(stream, [Column("comm")], Terminal(color=True)).write([("a",)])
    assert stream.getvalue() == "\x1b[1mCOMM\x1b[0m\na\n"


@given(st.lists(st.tuples(st.text(max_size=12), st.integers(), st.text(max_size=12)), min_size=1, max_size=8))
def test_each_row_is_one_line_that_holds_every_cell(rows: list[tuple[str, int, str]]) -> None:
    stream = io.StringIO()
    table = TraceTable(stream, [Column("a"), Column("n", "int"), Column("b")])
    for row in rows:
        table.write([row])
    lines = stream.getvalue().split("\n")[1:-1]
    assert len(lines) == len(rows)
    assert all(str(row[1]) in line for row, line in zip(rows, lines, strict=True))


@given(st.lists(st.tuples(st.sampled_from(["a", "日本", "é", "bb"]), st.integers(0, 9)), min_size=1))
def test_rows_that_fit_are_equally_wide(rows: list[tuple[str, int]]) -> None:
    stream = io.StringIO()
    TraceTable(stream, [Column("a"), Column("n", "int")]).write(rows)
    assert len({width_of(line) for line in stream.getvalue().splitlines()}) == 1
