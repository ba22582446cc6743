"""Several probes at one place, or at places that one jump serves: their order, and each by itself at rest."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from process_harness import at_work, code_of, wait_until
from test_instructions import TURNS, place
from test_native import all_events, handler, probing

from kprobes import Process, attach
from kprobes.model.probe import Probe
from kprobes.session import Session

pytestmark = pytest.mark.process
WAYS = ("", "breakpoint")


@contextmanager
def busy(build: Callable[..., Path]) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """Give a program whose threads call work() without end, and that checks what it returns."""
    program = build("threads.c")
    with at_work(program, 2) as process:
        yield program, process
        process.terminate()
        assert b"wrong" not in process.communicate(timeout=60)[0]


def check_moving(session: Session, *wanted: bool) -> None:
    """Wait until the sites that are *wanted* are hit, and see that the others are not."""
    before = [one.hits for one in session.stats]

    def moved() -> list[bool]:
        return [one.hits > other for one, other in zip(session.stats, before, strict=True)]

    if any(wanted):
        wait_until(lambda: all(now or not one for now, one in zip(moved(), wanted, strict=True)))
    time.sleep(0.02)  # would those that rest be hit, they were
    assert moved() == list(wanted)


@pytest.mark.parametrize("way", WAYS)
def test_they_run_in_the_order_of_registration(build: Callable[..., Path], tmp_path: Path, way: str) -> None:
    program = build("steps.c")
    where = place(program, "at_add")
    probes = [handler(f"def h():\n    emit(which={number})\n", where, way=way) for number in range(4)]
    with probing(program, tmp_path, *probes, arguments=(str(TURNS),)) as session:
        assert [event.which for event in all_events(session)] == [0, 1, 2, 3] * TURNS


def test_the_first_that_leaves_the_instruction_out_stops_the_rest(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("steps.c")
    where = place(program, "at_add")
    texts = ("emit(which=0)", "emit(which=1)\n    skip()", "emit(which=2)")
    probes = [handler(f"def h():\n    {text}\n", where, unsafe=True) for text in texts]
    with probing(program, tmp_path, *probes, arguments=(str(TURNS),)) as session:
        assert [event.which for event in all_events(session)] == [0, 1] * TURNS
        assert [one.hits for one in session.stats] == [TURNS, TURNS, 0]
    assert (tmp_path / "out").read_bytes().split()[0] == b"0"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["bare", "handlers", "pairs"])
def test_disabling_one_leaves_the_others_and_the_last_takes_the_jump(
    build: Callable[..., Path], way: str, kind: str
) -> None:
    with busy(build) as (program, process):
        code = code_of(process.pid, program)
        probes = [made(kind, f"{program.name}:work", way) for _ in range(3)]
        with attach(*probes, to=Process(process.pid)) as session:
            check_moving(session, *[True] * 3)
            for number, probe in enumerate(probes):
                session.disable(probe)
                rest = [one.hits for one in session.stats]
                others = [other != number for other in range(3)]
                check_moving(session, *others)
                assert session.stats[number].hits == rest[number]
                assert [row.state for row in session.listing] == ["" if other else "DISABLED" for other in others]
                session.enable(probe)
                check_moving(session, *[True] * 3)
            session.disable(probes[2], probes[0])
            check_moving(session, False, True, False)
            session.disable(probes[1])
            assert code_of(process.pid, program) == code
            check_moving(session, *[False] * 3)
            session.enable(probes[0])
            check_moving(session, True, False, False)
        assert code_of(process.pid, program) == code


def made(kind: str, where: str, way: str) -> Probe:
    if kind == "bare":
        return Probe("uprobe", (where,), way=way)
    if kind == "handlers":
        return handler("def h():\n    assert arg(1) < 1 << 63\n", where, way=way)
    return handler(
        "def h():\n    a = arg(1)\n    yield\n    assert retval == a * 2654435761 + 1\n",
        where,
        kind="uretprobe",
        way=way,
    )


def test_of_two_places_that_one_jump_serves_either_can_rest(build: Callable[..., Path]) -> None:
    with busy(build) as (program, process):
        probes = [Probe("uprobe", (f"{program.name}:work{offset}",)) for offset in ("", instruction_behind(program))]
        with attach(*probes, to=Process(process.pid)) as session:
            assert {row.flags for row in session.listing} == {("OPTIMIZED",)}
            for number, probe in enumerate(probes):
                session.disable(probe)
                others = [other != number for other in range(2)]
                check_moving(session, *others)
                session.enable(probe)
            check_moving(session, True, True)


def instruction_behind(program: Path) -> str:
    """Return the offset of the instruction behind the first one of work() that a probe at its entry means."""
    words = ["objdump", "-d", "--no-show-raw-insn", "--disassemble=work", str(program)]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    lines = [line.split() for line in listed if line.startswith(" ")]
    first = int(lines[0][0].rstrip(":"), 16)
    entry = 1 if lines[0][1] == "endbr64" else 0
    return f"+{int(lines[entry + 1][0].rstrip(':'), 16) - first:#x}"
