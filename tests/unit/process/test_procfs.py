"""Captured texts of /proc, with what can stand in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.engines.process.procfs import parse_maps, parse_start_time, parse_status

MAPS = """\
555555554000-555555555000 r--p 00000000 fe:00 1234                       /tmp/a b
555555555000-555555556000 r-xp 00001000 fe:00 1234                       /tmp/a b
7ffff7d00000-7ffff7d28000 rw-s 00000000 00:01 77                         /memfd:kprobes (deleted)
7ffff7fc1000-7ffff7fc3000 r-xp 00000000 00:00 0                          [vdso]
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
7ffff0000000-7ffff0001000 rwxp 00000000 00:00 0
"""

STATUS = """\
Name:\ta) S 1
Umask:\t0022
State:\tS (sleeping)
Tgid:\t42
TracerPid:\t7
Uid:\t1000\t1001\t1002\t1003
SigPnd:\t0000000000000001
ShdPnd:\t0000000000000100
SigBlk:\t0000000000000002
Seccomp:\t2
x86_Thread_features:\tshstk wrss
"""


def test_mappings_have_their_path_with_spaces_and_their_permissions() -> None:
    maps = parse_maps(MAPS)
    assert maps[1].path == "/tmp/a b"
    assert (maps[1].start, maps[1].end, maps[1].offset, maps[1].inode) == (0x555555555000, 0x555555556000, 0x1000, 1234)
    assert [one.executable for one in maps] == [False, True, False, True, False, True, True]
    assert maps[2].shared
    assert maps[2].deleted
    assert maps[6].path == ""


def test_status_tells_state_tracer_signals_seccomp_and_shadow_stack() -> None:
    status = parse_status(STATUS)
    assert (status.state, status.tracer, status.seccomp, status.shadow_stack) == ("S", 7, 2, True)
    assert status.uids == (1000, 1001, 1002, 1003)
    assert (status.pending, status.blocked) == (0x101, 2)


@pytest.mark.parametrize("name", ["cat", "a) R 1 2", "((", ") "])
def test_start_time_is_found_behind_any_name(name: str) -> None:
    fields = " ".join(str(number) for number in range(4, 40))
    assert parse_start_time(f"99 ({name}) S {fields}") == 22


@given(st.text(alphabet="0123456789abcdef-rwxps: \t()/\n", max_size=200))
def test_status_of_any_text_is_a_status_or_a_value_error(text: str) -> None:
    try:
        parse_status(text)
    except ValueError:
        return
