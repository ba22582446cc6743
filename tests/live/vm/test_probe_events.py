"""`kprobes events` against the tracefs of each kernel."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from guest_harness import Guest


@pytest.fixture
def clean(guest: Guest) -> Iterator[Guest]:
    """Give a guest without probe events, and leave it so."""
    guest.command("events", "clear")
    yield guest
    guest.command("events", "disable", "*", status=None)
    guest.command("events", "clear")
    assert guest.shell("cat /sys/kernel/tracing/kprobe_events").output == ""


def rows(guest: Guest, *words: str) -> dict[str, dict[str, object]]:
    lines = guest.command("events", "list", "--format=json", *words).output.splitlines()
    return {row["name"]: row for row in map(json.loads, lines)}


def test_an_event_is_defined_armed_counted_and_taken_away(clean: Guest) -> None:
    added = clean.command("events", "add", "p:mine/reads vfs_read count=%dx", "r:back vfs_read $retval").output
    assert re.fullmatch(r"p:mine/reads vfs_read count=%dx\nr\d*:kprobes/back vfs_read arg1=\$retval\n", added)
    assert {name: row["enabled"] for name, row in rows(clean).items()} == {"mine/reads": False, "kprobes/back": False}
    clean.command("events", "enable", "reads")
    clean.shell("cat /proc/version")
    row = rows(clean, "mine/*")["mine/reads"]
    assert row["enabled"] is True
    assert row["hits"] >= 1
    assert row["misses"] == 0
    clean.command("events", "remove", "mine/reads")
    assert set(rows(clean)) == {"kprobes/back"}
    table = clean.command("events", "list").output.splitlines()
    assert table[0].split() == ["EVENT", "STATE", "HITS", "MISSES", "DEFINITION"]
    assert table[1].split()[:2] == ["kprobes/back", "off"]


def test_a_refusal_shows_the_kernels_caret_and_leaves_nothing(clean: Guest) -> None:
    done = clean.command("events", "add", "p:first vfs_read", "p:second vfs_read foo=%nosuch", status=1)
    lines = done.errors.splitlines()
    assert lines[0].startswith("error: Invalid fetch argument") or "EINVAL" in lines[0]
    assert lines[1].strip().startswith("p:second vfs_read")
    assert lines[2].index("^") == lines[1].index("%nosuch")
    assert rows(clean) == {}


def test_mistakes_are_told(clean: Guest) -> None:
    assert "needs a definition" in clean.command("events", "add", status=2).errors
    assert "there is no probe event 'nosuch'" in clean.command("events", "remove", "nosuch", status=2).errors
