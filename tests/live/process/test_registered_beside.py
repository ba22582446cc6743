"""Probes that come and go in a process while others are registered: these never rest, and lose nothing."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process_harness import wait_until

from kprobes import (
    KPROBE_FLAG_DISABLED,
    Count,
    HashMap,
    Kprobe,
    Kretprobe,
    Module,
    Process,
    RegistrationError,
    disable_kprobe,
    enable_kprobe,
    printk,
    register_kprobe,
    register_kprobes,
    register_kretprobe,
    regs_return_value,
    tid,
    unregister_kprobe,
)

pytestmark = pytest.mark.process

OTHERS, MOST = 20, 3  # in all, at a time
THREADS = "2"
gathered, returned, wrong, beside = Count("gathered"), Count("returned"), Count("wrong"), Count("beside")
last = HashMap("last", key=int, value=int)


class Unresting:
    """A running `unresting`, whose threads begin with `begin`."""

    def __init__(self, path: Path) -> None:
        self._running = subprocess.Popen([path, THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._running.stdout
        assert self._running.stdout.readline() == "ready\n"

    @property
    def pid(self) -> int:
        return self._running.pid

    def begin(self) -> None:
        assert self._running.stdin
        self._running.stdin.write("go\n")
        self._running.stdin.flush()

    def calls(self) -> int:
        """Let it end, and return how often it has called `work`."""
        self._running.send_signal(signal.SIGTERM)
        told = self._running.communicate("it\n", timeout=60)[0]
        assert self._running.returncode == 0
        return int(told.split()[-1])

    def close(self) -> None:
        if self._running.returncode is None:
            self._running.kill()
            self._running.communicate()


@pytest.fixture
def program(build: Callable[..., Path]) -> Iterator[Unresting]:
    found = Unresting(build("unresting.c"))
    yield found
    found.close()


@pytest.fixture
def module(program: Unresting) -> Iterator[Module]:
    with Module(Process(program.pid)) as found:
        yield found


def counts_calls(p, regs):
    gathered.add()
    return 0


def keeps_argument(ri, regs):
    ri.data.argument = regs.di
    return 0


def checks_result(ri, regs):
    returned.add()
    if regs_return_value(regs) != ((ri.data.argument + 1) ^ 0x55) * 3 + 1:
        wrong.add()


def goes_by(p, regs):
    beside.add()
    last[tid()] = regs.di
    return 0


def looks_behind(p, regs, flags):
    beside.add()


def tells_of_return(ri, regs):
    beside.add()


def tells_of_wait(ri, regs):
    printk(f"waits({ri.data.argument:d}) = {regs_return_value(regs):d}")


def tells_one(p, regs):
    if regs.di == 7:
        printk(f"one {tid()}")
    return 0


def tells_two(p, regs):
    if regs.di == 7:
        printk(f"two {tid()}")
    return 0


def another(number: int) -> Kprobe | Kretprobe:
    """Return one of the probes that come and go: at the same place, beside it, behind it, of another function."""
    if number % 10 == 4:
        return Kretprobe(symbol_name="work", handler=tells_of_return)
    if number % 10 == 7:
        return Kprobe(symbol_name="work", post_handler=looks_behind)
    if number % 5 == 1:
        return Kprobe(symbol_name="work", pre_handler=goes_by)
    return Kprobe(symbol_name=("work", "other", "waits")[number % 3])


def test_no_hit_is_lost_while_others_come_and_go(program, module):
    first = Kprobe(symbol_name="work", pre_handler=counts_calls)
    calls = Kretprobe(symbol_name="work", entry_handler=keeps_argument, handler=checks_result, data_size=8)
    module.register(first, calls)
    session = module.session_of(first)
    program.begin()
    there: list[Kprobe | Kretprobe] = []
    for number in range(OTHERS):
        there.append(another(number))
        module.register(there[-1])
        if len(there) > MOST:
            module.unregister(there.pop(0))
    wait_until(lambda: session[beside])
    module.unregister(*there)
    done = program.calls()
    assert module.session_of(first) is session
    assert (first.hits, first.nmissed, calls.kp.hits, calls.nmissed) == (done, 0, done, 0)
    assert (session[gathered], session[returned], session[wrong]) == (done, done, 0)
    assert session[beside] > 0
    assert module.lost == 0


def test_a_call_that_is_under_way_keeps_its_data(program, module):
    register_kretprobe(Kretprobe(symbol_name="waits", entry_handler=keeps_argument, handler=tells_of_wait, data_size=8))
    program.begin()
    others = [another(number) for number in range(3)]
    register_kprobe(others[0])
    register_kprobes(others[1:])
    unregister_kprobe(others[1])
    program.calls()
    assert list(module.kmsg(0)) == ["waits(7) = 10"]


def test_what_comes_later_runs_behind_what_is_there(program, module):
    one, two = Kprobe(symbol_name="work", pre_handler=tells_one), Kprobe(symbol_name="work", pre_handler=tells_two)
    register_kprobe(two)
    register_kprobe(one)
    unregister_kprobe(two)
    register_kprobe(two)
    program.begin()
    program.calls()
    told = [line.split() for line in module.kmsg(0)]
    threads = {thread for _, thread in told}
    assert len(threads) == int(THREADS)
    assert all([word for word, one in told if one == thread] == ["one", "two"] for thread in threads)


def test_what_was_printed_and_taken_before_stays_so(program, module):
    one = Kprobe(symbol_name="work", pre_handler=tells_one)
    first = Kprobe(symbol_name="work", pre_handler=counts_calls)
    register_kprobes([one, first])
    program.begin()
    session = module.session_of(first)
    lines = module.kmsg()
    assert {next(lines).split()[0] for _ in range(int(THREADS))} == {"one"}
    taken = session.take(gathered)
    register_kprobe(Kprobe(symbol_name="other"))
    taken += session.take(gathered)
    disable_kprobe(first)
    register_kprobe(Kprobe(symbol_name="waits"))
    hits = first.hits
    assert taken + session[gathered] == hits
    assert first.flags & KPROBE_FLAG_DISABLED
    enable_kprobe(first)
    wait_until(lambda: first.hits > hits)
    done = program.calls()
    assert hits < first.hits == taken + session[gathered] <= done


def test_what_is_refused_leaves_the_others_as_they_are(program, module):
    first = Kprobe(symbol_name="work", pre_handler=counts_calls)
    register_kprobe(first)
    program.begin()
    for _ in range(3):
        with pytest.raises(RegistrationError, match="EILSEQ"):
            register_kprobe(Kprobe(symbol_name="other", offset=1))
    done = program.calls()
    assert (first.hits, module.session_of(first)[gathered]) == (done, done)
