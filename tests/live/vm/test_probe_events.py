"""`kprobes events` against the tracefs of each kernel."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_harness import Guest, run_kprobes


@pytest.fixture
def clean(guest: Guest) -> Iterator[Guest]:
    """Give a guest without probe events, and leave it so."""
    guest.command("events", "clear")
    yield guest
    guest.command("events", "remove", "*", status=None)
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
    assert done.output == ""
    assert rows(clean) == {}


def test_what_was_there_stays_where_a_later_definition_is_refused(clean: Guest) -> None:
    clean.command("events", "add", "p:mine vfs_read count=%dx")
    clean.command("events", "add", "p:mine vfs_write count=%dx", "p:other vfs_read %nosuch", status=1)
    listed = clean.command("events", "list").output
    assert "p:kprobes/mine vfs_read count=%dx" in listed
    assert "vfs_write" not in listed


def test_filters_and_triggers_are_set_shown_and_taken_away(clean: Guest) -> None:
    clean.command("events", "add", "p:opens do_sys_openat2 dfd=%di:s32 file=+0(%si):ustring")
    clean.command("events", "filter", "opens", 'dfd == -100 && file ~ "*/version"')
    clean.command("events", "trigger", "opens", 'traceoff:1 if file ~ "*/version"')
    row = rows(clean)["kprobes/opens"]
    assert row["filter"] == 'dfd == -100 && file ~ "*/version"'
    assert row["triggers"] == ['traceoff:count=1 if file ~ "*/version"']
    table = clean.command("events", "list").output
    assert 'filter dfd == -100 && file ~ "*/version"\n' in table
    assert 'trigger traceoff:count=1 if file ~ "*/version"\n' in table
    clean.command("events", "enable", "opens")
    # The condition holds for the first one, which ends the trace, once.
    assert clean.shell("cat /proc/version >/dev/null; cat /sys/kernel/tracing/tracing_on").output == "0\n"
    clean.shell("echo 1 > /sys/kernel/tracing/tracing_on; cat /proc/version /proc/cmdline")
    assert clean.shell("cat /sys/kernel/tracing/tracing_on").output == "1\n"
    traced = clean.shell("cat /sys/kernel/tracing/trace").output
    assert traced.count('file="/proc/version"') >= 1
    assert "cmdline" not in traced
    clean.command("events", "trigger", "opens", "!traceoff")
    clean.command("events", "filter", "opens", "0")
    row = rows(clean)["kprobes/opens"]
    assert (row["filter"], row["triggers"]) == ("", [])
    clean.command("events", "trigger", "opens", "stacktrace:5")
    clean.command("events", "remove", "opens")
    clean.shell("echo > /sys/kernel/tracing/trace")


def test_a_filter_that_is_refused_shows_the_kernels_caret(clean: Guest) -> None:
    clean.command("events", "add", "p:opens do_sys_openat2 dfd=%di:s32")
    lines = clean.command("events", "filter", "opens", "dfd == 1 && nosuch == 2", status=1).errors.splitlines()
    assert lines[0] == "error: Field not found (EINVAL)"
    assert lines[-1].startswith("hint: ")
    assert lines[2].index("^") > lines[1].index("nosuch")
    assert "EINVAL" in clean.command("events", "trigger", "opens", "nosuch", status=1).errors
    assert "needs an event and a text" in clean.command("events", "filter", "opens", status=2).errors


def test_mistakes_are_told(clean: Guest) -> None:
    assert "needs a definition" in clean.command("events", "add", status=2).errors
    assert "there is no probe event 'nosuch'" in clean.command("events", "remove", "nosuch", status=2).errors


def test_events_of_a_guest_that_ends_with_the_command_are_told(tmp_path: Path) -> None:
    alone = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = run_kprobes("events", "add", "--vm=6.12", "p:mine vfs_read", environment=alone)
    assert done.output == "p:kprobes/mine vfs_read\n"
    assert "`kprobes vm --keep --kernel 6.12 &` keeps one up" in done.errors
