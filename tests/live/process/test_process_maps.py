"""Maps of handlers in a process whose threads never stop adding to them."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kprobes
from kprobes import Array, Avg, Count, HashMap, Histogram, Max, Min, Process, Queue, Session, Stacks, Sum, arg, uprobe
from kprobes.events.average import Average

pytestmark = pytest.mark.process
THREADS, CALLS = 4, 400_000


@contextmanager
def hammered(program: Path, *handlers: Callable[..., object], calls: int = CALLS) -> Iterator[Session]:
    """Attach *handlers* to `work(n)` of a program whose threads call it with n = 0, 1, ... until each has made *calls*
    of them."""
    probes = [uprobe(f"{program.name}:work")(handler) for handler in handlers]
    with kprobes.attach(*probes, to=Process.spawn([str(program), str(THREADS), str(calls)])) as session:
        try:
            yield session
        finally:  # a program that runs on after a failure would slow down all that follows
            if session.engine.is_alive:
                os.kill(session.engine.pid, signal.SIGKILL)


def until_it_ends(session: Session) -> Iterator[None]:
    """Yield again and again while the program runs, and once more afterwards."""
    deadline = time.monotonic() + 60
    while session.engine.is_alive:
        assert time.monotonic() < deadline
        yield
        session.wait(0.005)
    yield


def rounds(session: Session, number: int = 8, calls: int = 1000) -> Iterator[None]:
    """Yield *number* times while the program runs, *calls* or more after the last time, and once more when it has been
    told to end."""
    for _ in range(number):
        before = session.stats[0].hits
        while session.stats[0].hits < before + calls:
            session.wait(0.005)
        yield
    os.kill(session.engine.pid, signal.SIGTERM)
    for _ in until_it_ends(session):
        pass
    yield


def test_what_is_taken_while_threads_add_is_neither_lost_nor_counted_twice(build):
    count, sums = Count("count"), Sum("sums", by=int, entries=64)
    keyed, sizes = Count("keyed", by=int, entries=64), Histogram("sizes", linear=(0, 1 << 20, 1 << 14))
    means, mean, everything = Avg("means", by=int, entries=64), Avg("mean"), Sum("everything")

    def add():
        n = arg(1)
        count.add()
        everything.add(n)
        keyed.add(by=n & 7)
        sums.add(n, by=n & 7)
        sizes.add(n)
        means.add(n, by=n & 3)
        mean.add(n)

    taken: dict[str, Counter[object]] = {name: Counter() for name in ("keyed", "sums", "means", "sizes")}
    whole, counted = Average(0, 0), 0
    with hammered(build("threads.c"), add, calls=0) as session:
        for _ in rounds(session):
            counted += session.take(count)
            taken["keyed"].update(session.take(keyed))
            taken["sums"].update(session.take(sums))
            for one in session.take(means).values():
                taken["means"].update({"count": one.count, "total": one.total})
            whole += session.take(mean)
            taken["sizes"].update(dict(enumerate(session.take(sizes).counts)))
        assert session.dropped_writes == {}
        (stats,), total = session.stats, session[everything]
    assert stats.missed == 0
    assert counted == stats.hits > 1000
    assert sum(taken["keyed"].values()) == sum(taken["sizes"].values()) == counted
    assert sum(taken["sums"].values()) == total
    assert whole == Average(counted, total)
    assert taken["means"] == {"count": counted, "total": total}


def test_extremes_of_each_interval_are_those_of_its_own_calls(build):
    low, high = Min("low"), Max("high")
    lows, highs = Min("lows", by=int, entries=64), Max("highs", by=int, entries=64)
    last, top = Array("last", 2), Max("top")

    def add():
        n = arg(1)
        top.add(n)
        low.add(n)
        high.add(n)
        lows.add(n, by=n & 1)
        highs.add(n, by=n & 1)
        last[n & 1] += 1

    found: dict[str, list[int]] = {"low": [], "high": [], "lows": [], "highs": []}
    elements = [0, 0]
    with hammered(build("threads.c"), add, calls=0) as session:
        for _ in rounds(session):
            for spec in (low, high):
                value = session.take(spec)
                found[spec.name] += [value] if value is not None else []
            found["lows"] += session.take(lows).values()
            found["highs"] += session.take(highs).values()
            elements = [one + other for one, other in zip(elements, session.take(last), strict=True)]
        (stats,), most = session.stats, session[top]
    assert min(found["low"]) == min(found["lows"]) == 0
    assert max(found["low"]) > 0, "each interval has a least value of its own"
    assert max(found["high"]) == max(found["highs"]) == most
    assert sum(elements) == stats.hits


def test_keys_that_were_taken_make_room_for_others(build):
    seen = Sum("seen", by=int, entries=64)

    def one_key_after_the_other():
        seen.add(1, by=arg(1) >> 10)

    found: Counter[object] = Counter()
    with hammered(build("threads.c"), one_key_after_the_other, calls=0) as session:
        for _ in rounds(session, 30, 10_000):  # a thread makes one key of 1024 calls
            found.update(session.take(seen))
        dropped, (stats,) = session.dropped_writes.get("seen", 0), session.stats
    assert len(found) > 64
    assert sum(found.values()) + dropped == stats.hits
    assert dropped == stats.faults


def test_a_queue_is_drained_while_threads_push_and_pop(build):
    pushed, dropped, popped = Count("pushed"), Sum("dropped"), Sum("popped")
    waiting = Queue("waiting", value=(int, int), entries=1000)

    def push_and_pop():
        n = arg(1)
        waiting.push((n, n ^ 0x5555))
        pushed.add()
        if n & 7 == 0:
            one, other = waiting.pop()
            popped.add(one != 0)
            dropped.add(one ^ other ^ 0x5555 if one else 0)

    drained = 0
    with hammered(build("threads.c"), push_and_pop, calls=100_000) as session:
        for _ in until_it_ends(session):
            values = session.take(waiting)
            assert all(one ^ other == 0x5555 for one, other in values)
            drained += sum(one != 0 for one, _ in values)
        lost = session.dropped_writes.get("waiting", 0)
        assert session[dropped] == 0, "what is popped is whole"
        # Each thread pushes one zero, which may be dropped, popped or drained without being counted.
        assert 0 <= session[pushed] - lost - drained - session[popped] <= THREADS


def test_the_least_recently_used_key_goes(build):
    recent = HashMap("recent", key=int, value=int, entries=128, lru=True)

    def remember():
        n = arg(1)
        recent[n] = n + 1
        recent[7] += 1

    with hammered(build("threads.c"), remember, calls=50_000) as session:
        for _ in until_it_ends(session):
            assert len(session[recent]) <= 128 + THREADS
        held = session[recent]
        assert session.dropped_writes.get("recent", 0) < 50, "others took the room that was made, again and again"
    assert 7 in held
    assert all(value == key + 1 for key, value in held.items() if key != 7)
    assert sum(key > 45_000 for key in held) > 64


def test_stacks_are_counted_with_their_frames(build):
    where = Stacks("where", by=int)

    def count_stack():
        where.add(by=arg(1) & 1)

    with hammered(build("threads.c", "-fno-inline"), count_stack, calls=1000) as session:
        for _ in until_it_ends(session):
            pass
        held = session[where]
        table = session.arrow(where)
    assert sum(held.values()) == THREADS * 1000
    assert {rest for _, rest in held} == {0, 1}
    assert all(frames[0].startswith("work") and frames[1].startswith("loop") for frames, _ in held)
    assert sum(table["value"].to_pylist()) == THREADS * 1000


def test_a_map_is_walked_live_until_the_program_ends(build):
    count = Count("count")

    def add():
        count.add()

    with hammered(build("threads.c"), add) as session:
        totals = list(session.every(0.02, count))
        session.clear(count)
        assert session[count] == 0
    assert totals == sorted(totals)
    assert totals[-1] == THREADS * CALLS
