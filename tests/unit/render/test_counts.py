"""Tables of counts."""

from __future__ import annotations

from kprobes.render.counts import counts
from kprobes.render.terminal import Terminal, width_of

PAIRS = [("vfs_write", 300), ("vfs_read", 1200), ("ext4_sync", 1), ("vfs_open", 300)]


def test_the_largest_comes_first_with_its_share_and_a_total() -> None:
    assert counts(PAIRS).splitlines() == [
        "FUNCTION    HITS   SHARE",
        "vfs_read   1,200   66.6%",
        "vfs_open     300   16.7%",
        "vfs_write    300   16.7%",
        "ext4_sync      1    0.1%",
        "total (4)  1,801  100.0%",
    ]


def test_the_rest_is_summed_up_and_the_rate_shown() -> None:
    assert counts(PAIRS, most=2, elapsed_s=2.0, titles=("KEY", "COUNT")).splitlines() == [
        "KEY         COUNT   SHARE  PER SECOND",
        "vfs_read    1,200   66.6%         600",
        "vfs_open      300   16.7%         150",
        "(2 others)    301   16.7%         150",
        "total (4)   1,801  100.0%         900",
    ]


def test_one_row_too_many_is_shown_rather_than_summed_up() -> None:
    assert "others" not in counts(PAIRS, most=3)


def test_a_single_row_needs_no_total_and_none_has_one() -> None:
    assert counts([("vfs_read", 5)]).splitlines() == ["FUNCTION  HITS   SHARE", "vfs_read     5  100.0%"]
    assert counts([]).splitlines() == ["FUNCTION   HITS  SHARE", "total (0)     0   0.0%"]


def test_keys_are_escaped() -> None:
    assert "\x1b" not in counts([("\x1b[2J", 1)])
    assert "\\x1b[2J" in counts([("\x1b[2J", 1)])


def test_long_names_are_cut_on_a_live_terminal_only() -> None:
    pairs = [("x" * 100, 5), ("y", 1)]
    assert "x" * 100 in counts(pairs, Terminal(width=50))
    assert all(width_of(line) <= 50 for line in counts(pairs, Terminal(width=50, live=True)).splitlines())
