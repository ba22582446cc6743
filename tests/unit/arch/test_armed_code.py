"""Real functions of libc run on the emulator, as they are and armed: the same outcome, and each hit counted once."""

from __future__ import annotations

import contextlib
import random
import re
from collections import Counter

import pytest

from kprobes.arch.x86_64.decode import Flow
from kprobes.arch.x86_64.image import Function
from kprobes.arch.x86_64.patch import IN_PROCESS, Tactic
from kprobes.arch.x86_64.sites import SitePlan, plan_site, plan_sites

from .emulator import PAGE, arbitrary
from .libc import SLIDE, image
from .world import BODIES, MakeBody, Unrunnable, World, arm, called, compare, counted


def content(page: int) -> bytes:
    """Return what libc has on a page, and noise where it has none."""
    source, specimen = image()
    code = source.bytes_at(page, PAGE) or specimen.read(page - SLIDE, PAGE)
    return code + random.Random(page).randbytes(PAGE - len(code))


def hits_of(function: Function, plans: list[SitePlan], body: MakeBody, seed: int) -> int:
    world = arm(image()[0], content, function, plans, body)
    # Flags that nobody reads any more need not come back.
    return compare(world, seed, flags="lazily" not in body.__name__)


def sample(seed: int, count: int) -> list[Function]:
    source = image()[0]
    found = [source.function(start) for start in random.Random(seed).sample(source.starts, count)]
    return [function for function in found if function and function.end - function.start > 12]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_one_armed_site_changes_nothing_but_its_count(body: MakeBody) -> None:
    ran, hits = Counter[str](), 0
    rng = random.Random(7)
    for number, function in enumerate(sample(BODIES.index(body), 50)):
        item = rng.choice(function.instructions[:24])
        plan = plan_site(image()[0], item.address)
        if plan.tactic not in IN_PROCESS:
            continue
        try:
            hits += hits_of(function, [plan], body, number)
        except Unrunnable:
            continue
        ran[plan.tactic] += 1
    assert ran[Tactic.JUMP] > 12
    assert hits > 10


def test_every_instruction_of_a_function_armed_at_once_is_counted() -> None:
    hits, tactics = 0, Counter[str]()
    for number, function in enumerate(sample(99, 25)):
        plans = list(plan_sites(image()[0], [item.address for item in function.instructions]).values())
        armed = [plan for plan in plans if plan.tactic in IN_PROCESS]
        try:
            hits += hits_of(function, armed, counted, number)
        except Unrunnable:
            continue
        tactics.update(plan.tactic for plan in plans)
    assert hits > 100
    assert tactics[Tactic.BREAKPOINT] + tactics[Tactic.REFUSED] < sum(tactics.values()) / 20


@pytest.mark.parametrize("tactic", [Tactic.CALL, Tactic.BLOCK, Tactic.PUN, Tactic.ISLAND])
def test_each_tactic_leaves_the_outcome_as_it_was(tactic: str) -> None:
    """Look for sites that take *tactic*, near the beginning of functions so that they are reached."""
    ran = hits = 0
    for number, function in enumerate(sample(5, 500)):
        for item in function.instructions[:14]:
            plan = plan_site(image()[0], item.address)
            if plan.tactic == tactic:
                break
        else:
            continue
        try:
            found = hits_of(function, [plan], called, number)
        except Unrunnable:
            continue
        ran, hits = ran + 1, hits + found
        if hits >= 5:
            break
    assert hits >= 2, f"{ran} functions ran"


def switches() -> list[Function]:
    """Return functions with an indirect jump: those whose bytes may hold one are decoded."""
    source = image()[0]
    marks = re.compile(rb"\xff[\xe0-\xe7\x24]")
    starts = [start for start, end in zip(source.starts, source.ends, strict=True) if 64 < end - start < 4096]
    likely = [start for start in starts if marks.search(source.bytes_at(start, source.extent(start)[1] - start))]
    found = [source.function(start) for start in likely]
    return [one for one in found if one and any(item.flow == Flow.JUMP_INDIRECT for item in one.instructions)]


def test_control_arrives_only_where_the_analysis_says() -> None:
    """Jump tables and all: an arrival that is not foreseen could hit the middle of a patch."""
    arrivals, by_table = 0, 0
    for function in [*sample(3, 60), *switches()]:
        world = World(function, content)
        for seed in range(6):
            state = arbitrary(seed)
            state.registers |= {name: (seed * 7 + number) % 40 for number, name in enumerate(("di", "si", "dx"))}
            with contextlib.suppress(Unrunnable):
                world.run(state)
        inside = {address for address in world.arrivals if function.start <= address < function.end}
        assert inside <= function.entered, f"{function.start - SLIDE:#x}"
        arrivals += len(inside)
        by_table += len(inside - image()[0].known_targets())
    assert arrivals > 30
    assert by_table >= 3  # by a jump table, so to where no direct branch leads
