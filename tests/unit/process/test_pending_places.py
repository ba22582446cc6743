"""What is remembered of objects that come and go, and for how long threads are waited for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kprobes.engines.process import release
from kprobes.engines.process.arming import Located
from kprobes.engines.process.patch import Place
from kprobes.engines.process.pending import MOST_DORMANT, MOST_FAILURES, Pending
from kprobes.engines.process.procfs import Mapping
from kprobes.engines.process.registry import Patch
from kprobes.engines.process.release import Patience

JUMP, CODE = b"\xe9\1\2\3\4", b"\x55\x48\x89\xe5\x90"


class Memory:
    """Every object's code, with jumps at *jumps*."""

    def __init__(self) -> None:
        self.jumps: set[int] = set()

    def read_some(self, address: int, size: int) -> bytes:
        return (JUMP if address in self.jumps else CODE)[:size]


def mapping(number: int) -> Mapping:
    return Mapping(number << 16, (number << 16) + 4096, "r-xp", 0, "fe:00", 7, "/plugin.so")


def arm(pending: Pending, memory: Memory, number: int) -> Patch:
    place = mapping(number)
    patch = Patch(place.start, CODE, JUMP, place.start)
    pending.note_armed([Located(0, place.start, place)], [patch], [(number << 32, 4096)])
    memory.jumps.add(place.start)
    return patch


def test_an_object_that_comes_back_gets_its_jump_back() -> None:
    pending, memory = Pending([0]), Memory()
    patch = arm(pending, memory, 1)
    assert not pending.waiting
    assert pending.take_gone(memory, [mapping(1)], {id(patch)}) == []  # type: ignore[arg-type]
    memory.jumps.clear()
    assert pending.take_gone(memory, [], {id(patch)}) == [patch]  # type: ignore[arg-type]
    assert pending.waiting == {0}
    assert pending.take_back(memory, [mapping(2)]) == []  # type: ignore[arg-type]
    assert pending.take_back(memory, [mapping(1)]) == [patch]  # type: ignore[arg-type]
    assert not pending.waiting


def test_an_object_that_went_and_came_between_two_looks_is_noticed() -> None:
    pending, memory = Pending([0]), Memory()
    patch = arm(pending, memory, 1)
    memory.jumps.clear()
    assert pending.take_gone(memory, [mapping(1)], set()) == []  # type: ignore[arg-type] - its site is disabled
    assert pending.take_gone(memory, [mapping(1)], {id(patch)}) == [patch]  # type: ignore[arg-type]


def test_code_is_kept_for_the_last_few_places_only() -> None:
    pending, memory = Pending([0]), Memory()
    for number in range(1, MOST_DORMANT + 3):
        patch = arm(pending, memory, number)
        pending.take_gone(memory, [], {id(patch)})  # type: ignore[arg-type]
    assert pending.forget_oldest() == {(1 << 32, 4096), (2 << 32, 4096)}
    assert pending.forget_oldest() == set()
    pending.keep([(1 << 32, 4096)])
    assert pending.forget_oldest() == {(1 << 32, 4096)}


def test_a_site_that_fails_again_and_again_is_given_up() -> None:
    pending = Pending([0, 1])
    for _ in range(MOST_FAILURES - 1):
        assert pending.note_failure([0]) == []
    assert pending.note_failure([0]) == [0]
    assert pending.waiting == {1}


@pytest.mark.parametrize(
    ("orig_ax", "stopped", "waits"), [((1 << 64) - 1, set(), True), (202, set(), False), ((1 << 64) - 1, {5}, False)]
)
def test_a_thread_that_runs_is_waited_for_longer(
    monkeypatch: pytest.MonkeyPatch, orig_ax: int, stopped: set[int], waits: bool
) -> None:
    now = [0.0]
    monkeypatch.setattr(release.time, "monotonic", lambda: now[0])
    threads: Any = SimpleNamespace(registers={5: SimpleNamespace(orig_ax=orig_ax)}, in_group_stop=stopped)
    patience = Patience()
    for _ in range(release.LEAST_TRIES):
        assert not patience.is_over(threads, [Place(5, 0x1000)])
    now[0] = release.SLEEPING_S + 0.1
    assert patience.is_over(threads, [Place(5, 0x1000)]) != waits
    now[0] = release.RUNNING_S + 0.1
    assert patience.is_over(threads, [Place(5, 0x1000)])
