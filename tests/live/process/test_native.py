"""Handlers compiled to native code, in programs: safe reads, changed registers, forced results, maps, clocks."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from process_harness import redirected

from kprobes import Count, HashMap, Histogram, String
from kprobes.engines.process.target import Process
from kprobes.errors import CompileError
from kprobes.events.record import Event
from kprobes.model import words
from kprobes.model.probe import HandlerSource, Probe
from kprobes.session import Session, attach_to, within_of

pytestmark = pytest.mark.process

WORDS = {name: getattr(words, name) for name in dir(words) if not name.startswith("_")}


def handler(
    text: str, place: str, *, kind: str = "uprobe", unsafe: bool = False, way: str = "", **maps: object
) -> Probe:
    return Probe(kind, (place,), HandlerSource("h", text, names={**WORDS, **maps}), way=way, unsafe=unsafe)


@contextmanager
def probing(program: Path, tmp_path: Path, *probes: Probe, arguments: tuple[str, ...] = ()) -> Iterator[Session]:
    """Run the program to its end with *probes*; its output is in `out`."""
    with redirected(tmp_path / "out", tmp_path / "err"):
        engine = Process.spawn([str(program), *arguments]).open()
        with attach_to(engine, *probes, within=within_of(engine)) as session:
            assert engine.wait(60)
            assert engine.exit_status == 0
            yield session


def all_events(session: Session) -> list[Event]:
    found: list[Event] = []
    while batch := session.poll(0.02):
        found += batch
    return found


def test_wild_pointers_are_counted_faults_and_others_are_read(build: Callable[..., Path], tmp_path: Path) -> None:
    text = "def h():\n    emit(ok=arg(2), word=deref(arg(1), 'u64'), text=string(arg(1), 24))\n"
    with probing(build("wild.c"), tmp_path, handler(text, "look")) as session:
        events = all_events(session)
        good = [event for event in events if event.ok == 1]
        bad = [event for event in events if event.ok == 0]
        assert [event.text for event in good] == [
            "in rodata", "in data", "on the heap", "on the stack", "mapped", "end",
        ]  # fmt: skip
        assert good[0].word == int.from_bytes(b"in rodat", "little")
        assert len(bad) == 13
        assert {event.word for event in bad} == {0}
        assert {event.text for event in bad[:-1]} == {""}
        (stats,) = session.stats
        assert (stats.hits, stats.faults, stats.lost) == (19, 13, 0)
    assert (tmp_path / "out").read_bytes() == b"done 6\n"


def test_memory_that_is_unmapped_meanwhile_never_kills(build: Callable[..., Path], tmp_path: Path) -> None:
    text = "def h():\n    text = string(arg(1), 24)\n    seen.add(by=text)\n"
    seen = Count("seen", by=String(24))
    with probing(build("wild.c"), tmp_path, handler(text, "look", seen=seen), arguments=("300",)) as session:
        (stats,) = session.stats
        found = session[seen]
        assert isinstance(found, dict)
        assert sum(found.values()) == stats.hits
        assert found["soon gone"] > 0
        assert found[""] >= stats.faults > 13


def test_a_forced_result_comes_back_without_the_function(build: Callable[..., Path], tmp_path: Path) -> None:
    text = "def h():\n    if arg(1) == 3:\n        return_from_function(-5)\n"
    with probing(build("fault.c"), tmp_path, handler(text, "answer", unsafe=True)) as session:
        assert session.stats[0].hits == 7
    assert (tmp_path / "out").read_text() == "2 12 22 -5 42 -10 ran 4\n"


def test_changed_arguments_are_what_the_function_gets(build: Callable[..., Path], tmp_path: Path) -> None:
    text = "def h():\n    regs.si = arg(2) + 100\n"
    with probing(build("fault.c"), tmp_path, handler(text, "answer", unsafe=True)) as session:
        assert session.stats[0].hits == 7
    assert (tmp_path / "out").read_text() == "102 112 122 132 142 264 ran 5\n"


def test_a_changed_result_is_what_the_caller_gets(build: Callable[..., Path], tmp_path: Path) -> None:
    text = "def h():\n    result = yield\n    regs.ax = result + 1000\n"
    with probing(build("fault.c"), tmp_path, handler(text, "answer", kind="uretprobe", unsafe=True)) as session:
        assert session.stats[0].hits == 7
    assert (tmp_path / "out").read_text() == "1002 1012 1022 1032 1042 2064 ran 5\n"


def test_maps_of_each_kind_hold_exact_values(build: Callable[..., Path], tmp_path: Path) -> None:
    text = (
        "def h():\n    total.add(arg(1))\n    sizes.add(arg(1))\n    by.add(arg(2), by=(arg(1), comm()))\n"
        "    last[arg(1)] = arg(2)\n    if arg(1) == 1:\n        del last[0]\n    bumped[arg(1) % 2] += 2\n"
    )
    maps = {
        "total": Count("total"),
        "sizes": Histogram("sizes"),
        "by": Count("by", by=(int, str)),
        "last": HashMap("last"),
        "bumped": HashMap("bumped"),
    }
    program = build("fault.c")
    with probing(program, tmp_path, handler(text, "answer", **maps)) as session:
        assert session[maps["total"]] == 0 + 1 + 2 + 3 + 4 + 3 + 3
        assert session[maps["sizes"]].total == 7  # type: ignore[attr-defined]
        name = program.name[:15]
        assert session[maps["by"]] == {(0, name): 2, (1, name): 2, (2, name): 2, (3, name): 6, (4, name): 2}
        assert session[maps["last"]] == {1: 2, 2: 2, 3: 1, 4: 2}
        assert session[maps["bumped"]] == {0: 6, 1: 8}
        assert session.stats[0].faults == 0


def test_a_full_map_is_a_fault(build: Callable[..., Path], tmp_path: Path) -> None:
    few = Count("few", by=int, entries=3)
    with probing(
        build("fault.c"), tmp_path, handler("def h():\n    few.add(by=arg(1))\n", "answer", few=few)
    ) as session:
        assert session[few] == {0: 1, 1: 1, 2: 1}
        assert (session.stats[0].hits, session.stats[0].faults) == (7, 4)


def test_events_tell_who_and_when(build: Callable[..., Path], tmp_path: Path) -> None:
    text = "def h():\n    emit(t=now(), pid=pid(), tid=tid(), who=comm(), uid=uid(), cpu=cpu(), f=random())\n"
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    program = build("fault.c")
    with probing(program, tmp_path, handler(text, "answer")) as session:
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        events = all_events(session)
        assert len(events) == 7
        times = [event.t for event in events]
        assert times == sorted(times)
        slack = 100_000  # the clock's rate was measured for some milliseconds only
        assert before - slack < times[0] <= times[-1] < after + slack
        assert {event.who for event in events} == {program.name[:15]}
        assert {event.pid for event in events} == {event.tid for event in events}
        assert len({event.f for event in events}) > 1


def test_cycles_count_at_a_constant_rate(build: Callable[..., Path], tmp_path: Path) -> None:
    text = "def h():\n    emit(c=cycles(), t=now(), d=cycles())\n"
    with probing(build("fault.c"), tmp_path, handler(text, "answer")) as session:
        events = all_events(session)
        assert len(events) == 7
        assert all(event.c < event.d for event in events)
        assert all(before.d < after.c for before, after in pairwise(events))


def test_what_only_the_kernel_knows_is_refused_where_it_is_asked_for(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    with (
        pytest.raises(CompileError, match="inside of a process"),
        probing(build("fault.c"), tmp_path, handler("def h():\n    emit(s=cgroup())\n", "answer")),
    ):
        pass


def test_under_a_seccomp_filter_no_system_call_is_made(build: Callable[..., Path]) -> None:
    text = "def h():\n    emit(ok=arg(2), text=string(arg(1), 24), p=pid(), t=tid(), who=comm())\n"
    program = build("sandbox.c")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        engine = Process(process.pid).open()
        with attach_to(engine, handler(text, "look"), within=within_of(engine)) as session:
            output, _ = process.communicate(b"\n", timeout=60)
            assert (output, process.returncode) == (b"done\n", 0)
            events = all_events(session)
            assert [event.text for event in events] == ["of the program", "on the stack", "", ""]
            assert {(event.p, event.t, event.who) for event in events} == {
                (process.pid, process.pid, program.name[:15])
            }
            assert (session.stats[0].hits, session.stats[0].faults) == (4, 2)


TAILS = "def h():\n    first = arg(2)\n    yield\n    ended.add(1)\n"
RESULT = "def h():\n    first = arg(2)\n    result = yield\n    ended.add(result + first - first)\n"


def test_a_call_that_ends_in_a_tail_call_is_a_hit_or_a_missed_one(build: Callable[..., Path], tmp_path: Path) -> None:
    for number, text in enumerate((TAILS, RESULT)):
        ended = Count("ended")
        directory = tmp_path / str(number)
        directory.mkdir()
        with probing(build("flow.c"), directory, handler(text, "tail_start", kind="uretprobe", ended=ended)) as session:
            (stats,) = session.stats
            words = (directory / "out").read_text().split()
            calls = int(words[words.index("tail_start") + 1]) if "tail_start" in words else stats.hits + stats.missed
            assert stats.hits + stats.missed == calls
            assert stats.hits > 0
            if text == TAILS:
                assert (session[ended], stats.missed) == (stats.hits, 0)


def test_threads_add_and_send_exactly(build: Callable[..., Path], tmp_path: Path) -> None:
    text = (
        "def h():\n    plain.add()\n    sizes.add(tid() % 7)\n    by.add(by=tid())\n    last[tid()] += 1\n"
        "    emit(who=tid(), number=last[tid()])\n"
    )
    maps = {"plain": Count("plain"), "sizes": Histogram("sizes"), "by": Count("by", by=int), "last": HashMap("last")}
    calls = 4 * 2000
    with probing(build("threads.c"), tmp_path, handler(text, "work", **maps), arguments=("4", "2000")) as session:
        events = all_events(session)
        (stats,) = session.stats
        assert (stats.hits, stats.missed, stats.faults) == (calls, 0, 0)
        assert session[maps["plain"]] == session[maps["sizes"]].total == calls  # type: ignore[attr-defined]
        by = session[maps["by"]]
        assert isinstance(by, dict)
        assert sorted(by.values()) == [2000] * 4
        assert session[maps["last"]] == by
        assert len(events) + stats.lost == calls
        for thread in by:
            numbers = [event.number for event in events if event.who == thread]
            assert numbers == sorted(numbers)


def test_threads_add_exactly_without_events_too(build: Callable[..., Path], tmp_path: Path) -> None:
    plain, sizes = Count("plain"), Histogram("sizes")
    text = "def h():\n    plain.add()\n    sizes.add(arg(1))\n"
    probe = handler(text, "work", plain=plain, sizes=sizes)
    with probing(build("threads.c"), tmp_path, probe, arguments=("4", "200000")) as session:
        assert session.stats[0].hits == session[plain] == session[sizes].total == 800_000  # type: ignore[attr-defined]
