"""Stacks taken by handlers in a process, beside those that glibc's backtrace() finds in the same place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_native import all_events, handler, probing

from kprobes import Count, UserStack
from kprobes.model.shared import STACK_DEPTH
from kprobes.session import Session

pytestmark = pytest.mark.process
TAKE = "def h():\n    emit(which=arg(1), frames=user_stack())\n"


def frames(session: Session, stack: int) -> tuple[int, ...]:
    return session._attached.read_stack(stack)


def told(tmp_path: Path) -> list[list[int]]:
    return [[int(word, 16) for word in line.split()] for line in (tmp_path / "out").read_text().splitlines()]


def test_frames_are_those_of_backtrace(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("stacks.c", "-fomit-frame-pointer", "-fno-optimize-sibling-calls")
    with probing(program, tmp_path, handler(TAKE, "leaf")) as session:
        ids = {event.which: event.frames for event in all_events(session) if event.which != 1}
        found = {which: frames(session, number) for which, number in ids.items()}
        names = {which: session.stack(number) for which, number in ids.items()}
        assert (session.stats[0].hits, session.stats[0].faults) == (8, 0)
    lines = told(tmp_path)
    order = [0, 1, 2, 3, 4, 9]  # what was told before each call: deep(20) comes second
    for which, line in zip(order, lines, strict=False):
        if which == 9:
            # Behind leaf and the code that was made, which backtrace() can't know, come the frames of its caller.
            assert list(found[9][3:]) == line
        elif which != 1:
            assert list(found[which][2:]) == line
    assert names[0][0] == f"leaf+0x0 ({program.name})"
    assert names[0][1].startswith("mid+")
    assert [name.split("+")[0] for name in names[3][:3]] == ["leaf", "mid", "on_signal"]
    assert any(name.startswith("main+") for name in names[3])


def test_deep_and_wild_stacks_end_in_time(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("stacks.c", "-fomit-frame-pointer", "-fno-optimize-sibling-calls")
    with probing(program, tmp_path, handler(TAKE, "leaf")) as session:
        events = all_events(session)
        twenty, deepest = (frames(session, event.frames) for event in events if event.which == 1)
        wild = next(frames(session, event.frames) for event in events if event.which == 10)
    lines = told(tmp_path)
    assert list(twenty[2:]) == lines[1]
    assert len(deepest) == STACK_DEPTH
    assert list(deepest[2:]) == lines[-1][: STACK_DEPTH - 2]
    assert len(wild) == 2


@pytest.mark.parametrize(("kind", "first"), [("uprobe", "leaf+0x0"), ("uretprobe", "leaf+0x")])
def test_stacks_are_keys_and_counted_once_each(
    build: Callable[..., Path], tmp_path: Path, kind: str, first: str
) -> None:
    program = build("stacks.c", "-fomit-frame-pointer", "-fno-optimize-sibling-calls")
    seen = Count("seen", by=UserStack)
    with probing(
        program, tmp_path, handler("def h():\n    seen.add(by=user_stack())\n", "leaf", kind=kind, seen=seen)
    ) as s:
        counted = s.read("seen")
        assert isinstance(counted, dict)
        assert sorted(counted.values()) == [1] * 8
        assert all(s.stack(key)[0].startswith(first) for key in counted)


def test_the_command_names_the_frames_of_a_program_that_has_ended(build: Callable[..., Path]) -> None:
    program = build("stacks.c", "-fomit-frame-pointer", "-fno-optimize-sibling-calls")
    words = ["trace", "--stack", "-n", "1", "leaf", "--", str(program)]
    command = [sys.executable, "-m", "kprobes.cli.main", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "\n        mid+0x" in done.stderr
    assert "main+0x" in done.stderr
