"""The list of what is armed, as text in shared memory that the target may write to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.engines.process.listing import format_listing, parse_listing
from kprobes.errors import FormatError
from kprobes.model.listed import Listed, State

ROW = Listed(0x7F12_3456, "k", "malloc+0x0", "libc.so.6", "jump", "5-byte jump; 2 instructions move")


def test_rows_come_back_as_they_were() -> None:
    rows = (ROW, Listed(0, "r", "später+0x4", "", "", "its object is not mapped yet", State.PENDING))
    assert parse_listing(format_listing(rows, 4096)) == rows


def test_names_with_tabs_and_line_ends_stay_one_row() -> None:
    odd = Listed(1, "k", "a\tb\nc", "x\ty", "jump", "why\n")
    assert parse_listing(format_listing([odd, ROW], 4096)) == (Listed(1, "k", "a b c", "x y", "jump", "why"), ROW)


def test_what_has_no_room_is_left_out_and_told() -> None:
    content = format_listing([ROW] * 100, 1000)
    assert len(content) <= 1000
    assert content.endswith(b"...\n")
    assert 5 < len(parse_listing(content)) < 100


@given(st.binary(max_size=200), st.integers(0, 150))
def test_scribbled_lists_are_refused_or_give_rows(junk: bytes, at: int) -> None:
    content = bytearray(format_listing([ROW, ROW], 4096))
    content[at : at + len(junk)] = junk
    try:
        rows = parse_listing(bytes(content))
    except FormatError:
        return
    assert all(isinstance(row, Listed) for row in rows)


@pytest.mark.parametrize("content", [b"", b"\0" * 15, b"\0" * 64, b"\xff" * 64])
def test_what_is_no_list_is_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        parse_listing(content)


def test_flags_are_those_of_the_kernel() -> None:
    assert ROW.flags == ("OPTIMIZED",)
    assert Listed(1, "k", "f+0x0", "", "breakpoint", "").flags == ()
    assert Listed(1, "k", "f+0x0", "", "fentry+fexit", "").flags == ("FTRACE",)
    assert Listed(1, "k", "f+0x0", "", "jump", "", State.DISABLED).flags == ("DISABLED",)
