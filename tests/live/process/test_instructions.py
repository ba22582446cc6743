"""Probes at single instructions: where they sit, and handlers that leave an instruction out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from test_native import all_events, handler, probing

from kprobes import Count
from kprobes.errors import CompileError, UnprobeableError
from kprobes.model.probe import Probe

pytestmark = pytest.mark.process
TURNS = 10
PLAIN = [30, 10, 10, 500, 10, 70]  # rax rdx rcx r8 r9 r10


def place(program: Path, label: str, function: str = "steps") -> str:
    listed = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout
    known = {fields[2]: int(fields[0], 16) for fields in map(str.split, listed.splitlines()) if len(fields) == 3}
    return f"{function}+{known[label] - known[function]:#x}"


def output(tmp_path: Path) -> list[int]:
    return [int(word) for word in (tmp_path / "out").read_bytes().split()]


@pytest.mark.parametrize("label", ["at_add", "at_inc", "at_lea", "at_load", "at_jz", "at_call", "at_dec", "at_jnz"])
@pytest.mark.parametrize("way", ["", "breakpoint"])
def test_a_probe_sits_at_its_instruction_and_changes_nothing(
    build: Callable[..., Path], tmp_path: Path, label: str, way: str
) -> None:
    program = build("steps.c")
    probe = Probe("uprobe", (place(program, label),), way=way)
    with probing(program, tmp_path, probe, arguments=(str(TURNS),)) as session:
        assert session.stats[0].hits == TURNS
    assert output(tmp_path) == PLAIN


@pytest.mark.parametrize(
    ("label", "when", "expected"),
    [
        ("at_add", "regs.di & 1", [15, 10, 10, 500, 10, 70]),
        ("at_inc", "regs.di & 1", [30, 5, 10, 500, 10, 70]),
        ("at_lea", "regs.di > 2", [30, 10, 2, 500, 10, 70]),
        ("at_jz", "True", [30, 10, 10, 1000, 10, 70]),
        ("at_odd", "regs.di == 5", [30, 10, 10, 400, 10, 70]),
        ("at_call", "regs.di & 1", [30, 10, 10, 500, 5, 70]),
        ("at_jnz", "regs.di == 5", [15, 5, 5, 200, 5, 35]),
    ],
)
@pytest.mark.parametrize("way", ["", "breakpoint"])
def test_an_instruction_is_left_out_when_asked(
    build: Callable[..., Path], tmp_path: Path, label: str, when: str, expected: list[int], way: str
) -> None:
    program = build("steps.c")
    text = f"def h():\n    if {when}:\n        skip()\n"
    probe = handler(text, place(program, label), unsafe=True, way=way)
    with probing(program, tmp_path, probe, arguments=(str(TURNS),)) as session:
        assert (session.stats[0].missed, session.stats[0].faults) == (0, 0)
    assert output(tmp_path) == expected


def test_registers_set_with_a_skip_stay_and_the_next_probe_runs(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("steps.c")
    seen = Count("seen")
    instead = handler("def h():\n    regs.r11 = 1000\n    skip()\n", place(program, "at_load"), unsafe=True)
    after = handler("def h():\n    seen.add(regs.r11)\n", place(program, "at_sum"), seen=seen)
    with probing(program, tmp_path, instead, after, arguments=(str(TURNS),)) as session:
        assert session[seen] == 1000 * TURNS
    assert output(tmp_path) == [30, 10, 10, 500, 10, 1000 * TURNS]


def test_a_skip_that_moves_the_stack_pointer_goes_by_the_frame(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("steps.c")
    text = "def h():\n    regs.sp = regs.sp\n    regs.ax = regs.ax + 1\n    skip()\n"
    with probing(program, tmp_path, handler(text, place(program, "at_add"), unsafe=True), arguments=(str(TURNS),)):
        pass
    assert output(tmp_path) == [TURNS, 10, 10, 500, 10, 70]


def test_leaving_the_function_from_its_middle_is_refused(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("steps.c")
    probe = handler("def h():\n    return_from_function(1)\n", place(program, "at_add"), unsafe=True)
    with pytest.raises(CompileError, match="at the entry"), probing(program, tmp_path, probe):
        pass


BEFORE_AND_AFTER = [  # the label, a register, and what the instruction does to it on each turn
    ("at_add", "ax", [(3 * turn, 3 * turn + 3) for turn in range(TURNS)]),
    ("at_inc", "dx", [(turn, turn + 1) for turn in range(TURNS)]),
    ("at_load", "r11", [(0 if turn == 0 else 7, 7) for turn in range(1, TURNS)]),
    ("at_dec", "di", [(turn, turn - 1) for turn in range(TURNS, 0, -1)]),
    ("at_call", "r9", [(turn, turn) for turn in range(TURNS)]),
]


@pytest.mark.parametrize(("label", "register", "expected"), BEFORE_AND_AFTER, ids=lambda value: str(value)[:8])
@pytest.mark.parametrize("way", ["", "breakpoint"])
def test_a_yield_runs_the_instruction(
    build: Callable[..., Path], tmp_path: Path, label: str, register: str, expected: list[tuple[int, int]], way: str
) -> None:
    program = build("steps.c")
    text = f"def h():\n    before = regs.{register}\n    yield\n    emit(before=before, after=regs.{register})\n"
    with probing(program, tmp_path, handler(text, place(program, label), way=way), arguments=(str(TURNS),)) as session:
        seen = [(event.before, event.after) for event in all_events(session)]
        (stats,) = session.stats
        assert (stats.hits, stats.missed) == (TURNS, 0)
    assert seen[-len(expected) :] == expected
    assert output(tmp_path) == PLAIN


def test_the_instruction_pointer_says_which_way_a_branch_took(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("steps.c")
    text = "def h():\n    before = regs.ip\n    yield\n    emit(length=regs.ip - before)\n"
    with probing(program, tmp_path, handler(text, place(program, "at_jz")), arguments=(str(TURNS),)) as session:
        lengths = [event.length for event in all_events(session)]
    assert lengths == [6, 2] * (TURNS // 2)  # jz is two bytes, what it jumps over four


def test_a_call_is_followed_to_what_it_calls(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("steps.c")
    text = (
        "def h():\n    sp = regs.sp\n    yield\n    emit(pushed=sp - regs.sp, back=deref(regs.sp, 'u64') - regs.ip)\n"
    )
    helper = handler("def h():\n    pass\n", "helper")
    for way in ("", "breakpoint"):
        probe = handler(text, place(program, "at_call"), way=way)
        with probing(program, tmp_path, probe, helper, arguments=(str(TURNS),)) as session:
            assert [event.pushed for event in all_events(session)] == [8] * TURNS
            assert [stats.hits for stats in session.stats] == [TURNS, TURNS]
        assert output(tmp_path) == PLAIN


def test_leaving_before_the_yield_lets_this_hit_go(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("steps.c")
    text = "def h():\n    if regs.di & 1:\n        return\n    yield\n    emit(left=regs.di)\n"
    with probing(program, tmp_path, handler(text, place(program, "at_add")), arguments=(str(TURNS),)) as session:
        assert [event.left for event in all_events(session)] == [10, 8, 6, 4, 2]
        assert session.stats[0].hits == TURNS


def test_a_handler_may_change_what_the_instruction_made(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("steps.c")
    probe = handler("def h():\n    yield\n    regs.r11 = 2\n", place(program, "at_load"), unsafe=True)
    with probing(program, tmp_path, probe, arguments=(str(TURNS),)):
        pass
    assert output(tmp_path) == [30, 10, 10, 500, 10, 2 * TURNS]


def test_a_skipped_instruction_has_no_second_half(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("steps.c")
    text = "def h():\n    if regs.di & 1:\n        skip()\n        return\n    yield\n    emit(left=regs.di)\n"
    probe = handler(text, place(program, "at_add"), unsafe=True)
    with probing(program, tmp_path, probe, arguments=(str(TURNS),)) as session:
        assert [event.left for event in all_events(session)] == [10, 8, 6, 4, 2]
    assert output(tmp_path) == [15, 10, 10, 500, 10, 70]


def test_behind_a_return_is_refused(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("steps.c")
    probe = handler("def h():\n    yield\n    emit(1)\n", place(program, "at_ret"))
    with pytest.raises(UnprobeableError, match="nothing can run behind"), probing(program, tmp_path, probe):
        pass


def test_an_instruction_has_no_return_value(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("steps.c")
    probe = handler("def h():\n    value = yield\n    emit(value)\n", place(program, "at_add"))
    with pytest.raises(CompileError, match="an instruction has run"), probing(program, tmp_path, probe):
        pass
