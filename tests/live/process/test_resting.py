"""Uprobes of this machine's kernel that rest and go on, whatever the way in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process_harness import functions_of
from test_registered import Program

from kprobes import Session, definition
from kprobes.engines.kernel.engine import KernelEngine
from kprobes.engines.kernel.trial import has_uprobe_multi
from kprobes.errors import UnsupportedError
from kprobes.model.plan import Way
from kprobes.model.probe import Probe
from kprobes.model.within import Within
from kprobes.session import attach_to

pytestmark = pytest.mark.process


@pytest.fixture
def program(build: Callable[..., Path]) -> Iterator[tuple[Program, Path]]:
    path = build("samples.c", "-no-pie", "-fno-pie")
    found = Program(path)
    yield found, path
    found.close()


def attached(program: Program, *probes: Probe) -> Session:
    return attach_to(KernelEngine(), *probes, within=Within(program.pid))


def hits(session: Session) -> list[int]:
    list(session.events(0.2))  # what tracefs tells of one process is counted as it is read
    return [one.hits for one in session.stats]


@pytest.mark.parametrize("way", ["uprobe", "uretprobe", "tracefs"])
def test_one_rests_and_goes_on_and_the_other_never_notices(program, way):
    running, path = program
    kind = "uretprobe" if way == "uretprobe" else "uprobe"
    places = [f"{path}:{name}" for name in ("work", "factorial")]
    probes = [Probe(kind, (place,)) for place in places]
    if way == "tracefs":
        probes = [definition(f"p {path}:{offset:#x}", way=Way.TRACEFS) for offset in offsets(path)]
    with attached(running, *probes) as session:
        running.ask(1)
        session.disable(probes[0])
        running.ask(2)
        assert hits(session) == [1, 8]
        session.enable(probes[0])
        running.ask(3)
        assert hits(session) == [2, 12]
        session.disable()
        running.ask(4)
        assert hits(session) == [2, 12]


def offsets(path: Path) -> list[int]:
    found = {name: offset for name, offset, _ in functions_of(path)}
    return [found["work"], found["factorial"]]


def test_one_link_of_many_places_rests_as_a_whole(program):
    running, path = program
    with attached(running, Probe("uprobe", (f"{path}:work", f"{path}:factorial"))) as session:
        if has_uprobe_multi():
            with pytest.raises(UnsupportedError, match="one link serves it and"):
                session.disable("*:work")
        running.ask(1)
        session.disable()
        running.ask(2)
        session.enable()
        running.ask(3)
        assert hits(session) == [2, 8]
