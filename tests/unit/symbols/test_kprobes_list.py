"""The kernel's lists of kprobes are read as it writes them, and nonsense is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kprobes.model.listed import Listed, State
from kprobes.symbols.kprobes_list import Blacklisted, parse_blacklist, parse_list

# As Linux 6.12 writes it; the third line is of a module, the fifth one of a user who may not see addresses.
LIST = """\
ffffffff81430999  k  vfs_read+0x9    [OPTIMIZED]
ffffffff81430994  k  vfs_read+0x4    [DISABLED][FTRACE]
ffffffffc02f1a30  r  ext4_file_read_iter+0x0 ext4 [FTRACE]
ffffffffc0301000  k  gone_function+0x10 ext4 [GONE]
0000000000000000  k  vfs_open+0x9   \x20
ffffffff8142d029  k  vfs_open+0x9    [DISABLED][OPTIMIZED]
"""


def test_each_line_is_a_row_with_its_flags() -> None:
    assert list(parse_list(LIST)) == [
        Listed(0xFFFFFFFF81430999, "k", "vfs_read+0x9", "", "jump", ""),
        Listed(0xFFFFFFFF81430994, "k", "vfs_read+0x4", "", "ftrace", "", State.DISABLED),
        Listed(0xFFFFFFFFC02F1A30, "r", "ext4_file_read_iter+0x0", "ext4", "ftrace", ""),
        Listed(0xFFFFFFFFC0301000, "k", "gone_function+0x10", "ext4", "breakpoint", "", State.GONE),
        Listed(0, "k", "vfs_open+0x9", "", "breakpoint", ""),
        Listed(0xFFFFFFFF8142D029, "k", "vfs_open+0x9", "", "jump", "", State.DISABLED, jumps=True),
    ]
    assert [row.flags for row in parse_list(LIST)] == [
        ("OPTIMIZED",),
        ("DISABLED", "FTRACE"),
        ("FTRACE",),
        ("GONE",),
        (),
        ("DISABLED", "OPTIMIZED"),
    ]


def test_the_blacklist_has_spans_and_names() -> None:
    text = "0xffffffff8103e180-0xffffffff8103e1e0\tdo_int3\n0x0000000000000000-0x0000000000000000\tdo_trap\n"
    assert list(parse_blacklist(text)) == [
        Blacklisted("do_int3", 0xFFFFFFFF8103E180, 0xFFFFFFFF8103E1E0),
        Blacklisted("do_trap", 0, 0),
    ]


@given(st.text(alphabet="0123456789abcdef kr+x[]\n\tGONEDISABLEDvfs_-", max_size=200))
def test_any_text_gives_rows_or_none(text: str) -> None:
    assert all(row.kind in "kr" and row.name for row in parse_list(text))
    assert all(one.name for one in parse_blacklist(text))
