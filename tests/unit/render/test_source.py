"""Errors with the line they are about."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.render.source import SourcePlace, problem
from kprobes.render.terminal import Terminal, width_of

LINE = "    name = file.f_pth.dentry\n"


def test_message_place_caret_and_hint() -> None:
    place = SourcePlace("handler.py", 12, 16, LINE, 5)
    assert problem("struct file has no field 'f_pth'", place=place, hint="did you mean f_path?").splitlines() == [
        "error: struct file has no field 'f_pth'",
        "  --> handler.py:12:17",
        "   |",
        "12 |     name = file.f_pth.dentry",
        "   |                 ^^^^^",
        "hint: did you mean f_path?",
    ]


def test_a_message_alone_is_one_line() -> None:
    assert problem("no such file", severity="warning") == "warning: no such file\n"


def test_several_lines_are_indented() -> None:
    assert problem("one\ntwo", hint="try\nthis").splitlines() == ["error: one", "  two", "hint: try", "      this"]


def test_tabs_and_escapes_move_the_caret() -> None:
    lines = problem("bad", place=SourcePlace("f", 1, 2, "\t\x1bx = 1")).splitlines()
    assert lines[3:] == ["1 |     \\x1bx = 1", "  |         ^"]


def test_a_place_without_text_is_named_only() -> None:
    assert problem("bad", place=SourcePlace("f.py", 3, 0)).splitlines() == ["error: bad", " --> f.py:3:1"]


def test_a_long_line_is_cut_on_both_sides_of_the_place() -> None:
    text = "x" * 300 + "HERE" + "y" * 300
    shown, caret = problem("bad", Terminal(width=60), place=SourcePlace("f", 1, 300, text, 4)).splitlines()[3:]
    assert width_of(shown) <= 60
    assert shown.index("HERE") == caret.index("^^^^")
    assert shown.startswith("1 | ...x")
    assert shown.endswith("y~")


@pytest.mark.parametrize("column", [-5, 0, 28, 29, 10**9])
def test_a_column_outside_the_line_stays_at_its_edge(column: int) -> None:
    caret = problem("bad", place=SourcePlace("f", 1, column, LINE)).splitlines()[-1]
    assert caret.count("^") == 1
    assert len(caret) <= 4 + len(LINE) + 1


def test_colour_only_where_the_terminal_has_it_and_the_text_is_the_same() -> None:
    place = SourcePlace("handler.py", 12, 16, LINE, 5)
    plain = problem("bad", place=place, hint="x")
    colored = problem("bad", Terminal(color=True), place=place, hint="x")
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain


@given(st.text(st.characters()), st.text(st.characters()), st.integers(-5, 50), st.integers(-2, 60))
def test_nothing_raw_gets_through(message: str, text: str, column: int, length: int) -> None:
    shown = problem(message, place=SourcePlace(message, 1, column, text, length), hint=message)
    assert all(line.isprintable() for line in shown.split("\n"))
