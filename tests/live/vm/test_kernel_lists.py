"""`kprobes list` of what a kernel itself keeps: the kprobes that are registered, and where none may go."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from guest_harness import Guest

DEBUG, TRACE = "/sys/kernel/debug/kprobes", "/sys/kernel/tracing"
# Behind endbr64 and ftrace's call lie pushes of two bytes each, in each of the kernels.
DEFINITIONS = ("p:entry vfs_read", "p:middle vfs_read+9", "r:back vfs_write", "p:rests vfs_open+9")
# Beside the second one, disabled: the jump at their place stays.
RESTS = "p:beside vfs_read+9"
ENABLED = ("entry", "middle", "back")


@pytest.fixture
def probed(guest: Guest) -> Iterator[Guest]:
    """Give a guest with kprobes of each kind, all but the last one enabled."""
    for line in (*DEFINITIONS, RESTS):
        assert guest.shell(f"echo '{line}' >> {TRACE}/kprobe_events").errors == ""
    switch(guest, 1)
    yield guest
    switch(guest, 0)
    guest.shell(f"echo 1 > {DEBUG}/enabled; echo > {TRACE}/kprobe_events")
    assert guest.shell(f"cat {DEBUG}/list").output == ""


def switch(guest: Guest, on: int) -> None:
    for name in ENABLED:
        guest.shell(f"echo {on} > {TRACE}/events/kprobes/{name}/enable")


def flags_in(line: str) -> list[str]:
    return re.findall(r"\[([A-Z]+)\]", line)


def test_the_armed_kprobes_are_those_of_debugfs_with_all_their_flags(probed: Guest) -> None:
    # The optimizer comes a while after the last change: its flag is waited for, where the kernel has one.
    probed.shell(f"for i in $(seq 600); do grep -q OPTIMIZED {DEBUG}/list && break; usleep 100000; done")
    theirs = sorted(probed.shell(f"cat {DEBUG}/list").output.splitlines())
    rows = [json.loads(line) for line in probed.command("list", "--armed", "--format=json").output.splitlines()]
    ours = [(f"{row['address']:016x}", row["kind"], row["name"], row["flags"]) for row in rows]
    assert sorted(ours) == sorted((*line.split()[:3], flags_in(line)) for line in theirs)
    assert ["DISABLED", "OPTIMIZED"] in [row["flags"] for row in rows]
    found = {flag for row in rows for flag in row["flags"]}
    assert found >= {"DISABLED", "OPTIMIZED", "FTRACE"}
    assert {row["kind"] for row in rows} == {"k", "r"}


def test_a_glob_chooses_and_disarming_all_is_told(probed: Guest) -> None:
    probed.shell(f"echo 0 > {DEBUG}/enabled")
    done = probed.command("list", "--armed", "vfs_open*")
    assert re.fullmatch(r"[0-9a-f]{16}  k  vfs_open\+0x9 \[DISABLED\]  breakpoint\n", done.output)
    assert "all kprobes are disarmed" in done.errors
    probed.shell(f"echo 1 > {DEBUG}/enabled")
    assert "disarmed" not in probed.command("list", "--armed").errors


def test_the_blacklist_is_the_kernels(guest: Guest) -> None:
    theirs = guest.shell(f"cat {DEBUG}/blacklist").output.splitlines()
    rows = [json.loads(line) for line in guest.command("list", "--blacklist", "--format=json").output.splitlines()]
    assert [f"0x{row['begin']:016x}-0x{row['end']:016x}\t{row['name']}" for row in rows] == theirs
    (line,) = guest.command("list", "--blacklist", "get_kprobe").output.splitlines()
    assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]{16}  get_kprobe", line)
