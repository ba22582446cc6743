"""Handlers that run when the probed instruction faults, before the program gets its signal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from process_harness import code_of, redirected, started
from test_faults import plain
from test_instructions import place
from test_native import WORDS, all_events

from kprobes import Count, Process, attach
from kprobes.errors import CompileError, UsageError
from kprobes.model.probe import HandlerSource, Probe
from kprobes.session import Session

pytestmark = pytest.mark.process

TELL = (
    "def h():\n"
    "    emit(signal=fault_signal(), about=fault_address(), at=regs.ip - function(), di=regs.di, ax=regs.ax)\n"
)


def on_fault(text: str, *places: str, unsafe: bool = False, **maps: object) -> Probe:
    return Probe("uprobe", places, HandlerSource("h", text, names={**WORDS, **maps}), unsafe=unsafe, on_fault=True)


@contextmanager
def probing(program: Path, tmp_path: Path, *probes: Probe, arguments: tuple[str, ...]) -> Iterator[Session]:
    """Run the program to its end with *probes*; its output is in `out`."""
    with redirected(tmp_path / "out", tmp_path / "err"):
        target = Process.spawn([str(program), *arguments])
        with attach(*probes, to=target) as session:
            assert session.engine.wait(60)  # type: ignore[attr-defined]
            assert session.engine.exit_status == 0  # type: ignore[attr-defined]
            yield session


def shown(tmp_path: Path) -> str:
    return (tmp_path / "out").read_text()


def counts(session: Session) -> list[tuple[int, int | None]]:
    return [(one.hits, one.missed) for one in session.stats]


def test_it_runs_for_each_fault_and_the_program_sees_nothing_of_it(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("faulting.c")
    labels = ("at_load", "at_store", "at_div", "at_ill")
    functions = ("load_from", "store_to", "divide", "illegal")
    probes = [on_fault(TELL, place(program, *one)) for one in zip(labels, functions, strict=True)]
    with probing(program, tmp_path, *probes, arguments=("all",)) as session:
        events = all_events(session)
        assert counts(session) == [(2, 0), (1, 0), (1, 0), (1, 0)]
    assert shown(tmp_path) == plain(str(program), "all")
    assert [one.signal for one in events] == [signal.SIGSEGV] * 3 + [signal.SIGFPE, signal.SIGILL]
    assert [(one.about, one.di, one.ax) for one in events[:2]] == [(16, 16, 77), (0, 1 << 63, 77)]
    assert {one.at for one in events} == {0}
    assert events[2].about == events[2].di
    assert events[3].ax == 1000
    assert events[3].about % 4096 == (events[4].about - 26) % 4096


@pytest.mark.parametrize("way", ["", "breakpoint"])
def test_beside_a_probe_of_the_same_instruction(build: Callable[..., Path], tmp_path: Path, way: str) -> None:
    program = build("faulting.c")
    where = place(program, "at_load", "load_from")
    probes = (on_fault(TELL, where), Probe("uprobe", (where,), way=way), Probe("uprobe", ("load_from",), way=way))
    with probing(program, tmp_path, *probes, arguments=("load", "40")) as session:
        events = all_events(session)
        assert counts(session) == [(20, 0), (40, 0), (40, 0)]
    assert shown(tmp_path) == plain(str(program), "load", "40")
    assert {(one.about, one.at, one.ax) for one in events} == {(0, 0, 77)}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("def h():\n    skip()\n", 3 * 10 + 77 * 10),
        ("def h():\n    regs.rax = 5\n    skip()\n", 3 * 10 + 5 * 10),
        ("def h():\n    regs.di = regs.sp\n    regs.ax = 1\n", 3 * 10),
    ],
)
def test_a_handler_may_let_the_program_go_on(
    build: Callable[..., Path], tmp_path: Path, text: str, total: int, beside: bool
) -> None:
    program = build("faulting.c")
    where = place(program, "at_load", "load_from")
    probes = (on_fault(text, where, unsafe=True), *((Probe("uprobe", (where,)),) if beside else ()))
    with probing(program, tmp_path, *probes, arguments=("load", "20")) as session:
        assert counts(session) == [(10, 0), (20, 0)][: 1 + beside]
    lines = shown(tmp_path).splitlines()
    assert lines[-1] == f"sum {total}"
    assert len(lines) == (1 if "skip" in text else 11)
    assert all(" di 1 " in line for line in lines[:-1])  # what it changed, the signal handler finds


@pytest.mark.parametrize("beside", [False, True])
def test_a_handler_may_mend_the_cause_and_have_it_run_again(
    build: Callable[..., Path], tmp_path: Path, beside: bool
) -> None:
    program = build("faulting.c")
    text = "def h():\n    regs.di = regs.sp - 8\n    regs.ip = function()\n"
    where = place(program, "at_load", "load_from")
    probes = (on_fault(text, where, unsafe=True), *((Probe("uprobe", (where,)),) if beside else ()))
    with probing(program, tmp_path, *probes, arguments=("load", "20")) as session:
        assert counts(session) == [(10, 0), (20, 0)][: 1 + beside]
    assert len(shown(tmp_path).splitlines()) == 1


def test_threads_fault_while_signals_come(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("faulting.c")
    seen = Count("seen", by=int)
    text = "def h():\n    seen.add(by=tid())\n    emit(at=fault_address())\n"
    probe = on_fault(text, place(program, "at_load", "load_from"), seen=seen)
    with probing(program, tmp_path, probe, arguments=("threads", "192")) as session:
        found = session[seen]
        assert isinstance(found, dict)
        assert sorted(found.values()) == [192] * 4
        assert counts(session) == [(768, 0)]
        assert len(all_events(session)) == 768
    assert shown(tmp_path) == plain(str(program), "threads", "192") == "sum 769152 changed 0\n"


@pytest.mark.parametrize("how", ["deep", "main-deep"])
def test_where_no_stack_is_left_the_fault_is_missed(build: Callable[..., Path], tmp_path: Path, how: str) -> None:
    program = build("faulting.c")
    probe = on_fault(TELL, place(program, "at_call", "sink"))
    with probing(program, tmp_path, probe, arguments=(how,)) as session:
        assert counts(session) == [(0, 1)]
    assert shown(tmp_path) == plain(str(program), how)


def test_a_stack_that_grows_when_it_is_touched_grows(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("faulting.c")
    probe = on_fault(TELL, place(program, "at_edge", "load_on"))
    with probing(program, tmp_path, probe, arguments=("edge", "3")) as session:
        assert counts(session) == [(3, 0)]
    assert shown(tmp_path) == plain(str(program), "edge", "3")


def test_in_a_library_that_comes_and_goes(build: Callable[..., Path], tmp_path: Path) -> None:
    program, library = build("faulting.c"), build("faulting.c", "-shared", "-fPIC")
    probe = on_fault(TELL, f"{library}:{place(library, 'at_load', 'load_from')}")
    with probing(program, tmp_path, probe, arguments=("library", str(library))) as session:
        assert counts(session) == [(15, 0)]
        assert [(one.about, one.at, one.ax) for one in all_events(session)] == [(0, 0, 77)] * 15
    assert shown(tmp_path) == "seen 15\n"


def test_in_a_program_that_takes_system_calls_for_itself(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("faulting.c")
    probe = on_fault(TELL, place(program, "at_load", "load_from"))
    with probing(program, tmp_path, probe, arguments=("dispatch", "5")) as session:
        assert counts(session) == [(5, 0)]
    assert shown(tmp_path) == plain(str(program), "dispatch", "5")


def test_several_handlers_run_until_one_takes_over(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("faulting.c")
    where = place(program, "at_load", "load_from")
    count = Probe("uprobe", (where,), on_fault=True)
    probes = (count, on_fault("def h():\n    skip()\n", where, unsafe=True), count)
    with probing(program, tmp_path, *probes, arguments=("load", "20")) as session:
        assert counts(session) == [(10, 0), (10, 0), (0, 0)]


def test_it_comes_and_goes_with_a_running_program(build: Callable[..., Path]) -> None:
    program = build("faulting.c")
    with started(program, "for-ever") as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = code_of(process.pid, program)
        probe = on_fault(TELL, place(program, "at_load", "load_from"))
        with attach(probe, to=Process(process.pid)) as session:
            assert code_of(process.pid, program) == before
            while session.stats[0].hits < 100:
                session.poll(0.01)
            (listed,) = session.listing
            assert (listed.way, listed.state) == ("fault", "")
            session.disable(probe)
            (hits,) = [one.hits for one in session.stats]
            session.poll(0.05)
            assert [one.hits for one in session.stats] == [hits]
            assert session.listing[0].state == "DISABLED"
            session.enable(probe)
            while session.stats[0].hits < hits + 100:
                session.poll(0.01)
        assert code_of(process.pid, program) == before
        assert process.poll() is None


def test_what_can_not_be_asked_is_refused(build: Callable[..., Path]) -> None:
    program = build("faulting.c")
    probes = (
        (Probe("uretprobe", ("load_from",), on_fault=True), UsageError, "a return is nothing that faults"),
        (on_fault("def h():\n    yield\n    emit(1)\n", "load_from"), CompileError, "no second half"),
        (on_fault("def h():\n    skip()\n", "load_from"), CompileError, "changes the probed program"),
    )
    for probe, kind, why in probes:
        with pytest.raises(kind, match=why), attach(probe, to=Process.spawn([str(program), "load"])):
            pass
