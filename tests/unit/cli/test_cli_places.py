from __future__ import annotations

import pytest

from kprobes.cli.places import parse_place, probes_of
from kprobes.cli.rows import split_expressions
from kprobes.errors import UsageError


@pytest.mark.parametrize(
    ("text", "user", "meant"),
    [
        ("vfs_read", False, ("kprobe", "vfs_read")),
        ("r:vfs_read", False, ("kretprobe", "vfs_read")),
        ("p:vfs_read+0x10", False, ("kprobe", "vfs_read+0x10")),
        ("ext4:ext4_iget", False, ("kprobe", "ext4:ext4_iget")),
        ("t:sched:sched_switch", False, ("tracepoint", "sched:sched_switch")),
        ("u:libc:malloc", False, ("uprobe", "libc:malloc")),
        ("malloc", True, ("uprobe", "malloc")),
        ("libc:malloc", True, ("uprobe", "libc:malloc")),
        ("p:work", True, ("uprobe", "work")),
        ("r:libc:malloc", True, ("uretprobe", "libc:malloc")),
        ("kprobe:vfs_read", True, ("kprobe", "vfs_read")),
    ],
)
def test_a_place_says_its_kind(text, user, meant):
    assert parse_place(text, user=user) == meant


@pytest.mark.parametrize("text", ["", "r:", "t:sched", "vfs read", "vfs\nread", "a\0b"])
def test_what_names_nothing_is_refused(text):
    with pytest.raises(UsageError):
        parse_place(text)


def test_returning_moves_a_function_to_its_return():
    assert [probe.kind for probe in probes_of(["vfs_read", "u:libc:free"], None, returning=True)] == [
        "kretprobe",
        "uretprobe",
    ]


def test_a_tracepoint_has_no_return():
    with pytest.raises(UsageError):
        probes_of(["t:sched:sched_switch"], None, returning=True)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("a", ["a"]),
        ("a, b", ["a", "b"]),
        ("f(a, b), c[1, 2]", ["f(a, b)", "c[1, 2]"]),
        ("'a,b', \"c,d\"", ["'a,b'", '"c,d"']),
    ],
)
def test_expressions_are_split_at_their_own_commas(text, parts):
    assert split_expressions(text) == parts


@pytest.mark.parametrize("text", ["a,,b", "f(a", "'a", "a,", ","])
def test_open_brackets_and_empty_expressions_are_refused(text):
    with pytest.raises(UsageError):
        split_expressions(text)
