"""What one hit costs, in a guest: a counting probe, and a histogram of the time from entry to return.

One program makes cheap system calls of many kinds in turns; each kind is probed in another way, ours and bpftrace's at
the same time, so that all of them see the same noise. The cost of a hit is what a call takes more than without probes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.guests import BPFTRACE, Guest
from bench.lab import Lab, has
from kprobes.model.mapspec import Histogram
from kprobes.model.probe import AutoHandler, Probe
from kprobes.session import attach_to

if TYPE_CHECKING:
    from collections.abc import Iterator

KERNELS = ("6.12", "6.1")
ROUNDS, CALLS = 60, 3000
# Cheap system calls without arguments: what is probed -> its number and function.
CALLED = {
    "plain": (219, "__do_sys_restart_syscall"),
    "count": (102, "__do_sys_getuid"),
    "count by kprobe.multi": (104, "__do_sys_getgid"),
    "count by kprobe": (107, "__do_sys_geteuid"),
    "bpftrace count": (108, "__do_sys_getegid"),
    "pair": (39, "__do_sys_getpid"),
    "pair by kprobe": (186, "__do_sys_gettid"),
    "bpftrace pair": (110, "__do_sys_getppid"),
    "bpftrace kfunc pair": (111, "__do_sys_getpgrp"),
}
LATENCY = AutoHandler("latency", divisor=1, values=Histogram("values"))
COUNT_SCRIPT = "kprobe:{0} {{ @c = count(); }}"
PAIR_SCRIPT = (
    "{2}:{0} {{ @s{1}[tid] = nsecs; }} {3}:{0} /@s{1}[tid]/ {{ @h{1} = hist(nsecs - @s{1}[tid]); delete(@s{1}[tid]); }}"
)


def run(lab: Lab) -> Iterator[Figure]:
    """Yield the costs on each kernel."""
    calls = lab.build("calls", "-static")
    for kernel in KERNELS:
        lab.say(f"hits in {kernel} ...")
        with Guest(kernel) as guest:
            guest.run(["true"], copy=[str(calls), *([BPFTRACE] if has("bpftrace") else [])])
            yield from _figures(kernel, _costs(guest))


def _costs(guest: Guest) -> dict[str, float]:
    """Return the nanoseconds that a hit of each kind costs."""
    before = _measure(guest, "")
    probes = [
        Probe("kprobe", (_function("count"),)),
        Probe("kprobe", (_function("count by kprobe"),), way="kprobe"),
        Probe("kretprobe", (_function("pair"),), LATENCY),
        Probe("kretprobe", (_function("pair by kprobe"),), LATENCY, way="kprobe"),
    ]
    multi = bool(guest.machine.facts().features.kprobe_multi)
    if multi:
        probes.append(Probe("kprobe", (_function("count by kprobe.multi"),), way="kprobe.multi"))
    script = " ".join(
        (
            COUNT_SCRIPT.format(_function("bpftrace count")),
            PAIR_SCRIPT.format(_function("bpftrace pair"), 1, "kprobe", "kretprobe"),
            PAIR_SCRIPT.format(_function("bpftrace kfunc pair"), 2, "kfunc", "kretfunc"),
        )
    )
    session = attach_to(guest.machine, *probes)
    try:
        after = _measure(guest, script if has("bpftrace") else "")
        _check(session.stats)
    finally:
        session.detach()
    # once more, in case that something disturbed the first time
    before = {name: min(least, before[name]) for name, least in _measure(guest, "").items()}
    # without bpftrace its own kinds cost nothing, and say nothing
    costs = {name: after[name] - before[name] for name in CALLED if has("bpftrace") or not name.startswith("bpftrace")}
    if not multi:
        costs.pop("count by kprobe.multi")
    return costs


def _check(stats: list) -> None:
    """Refuse a measurement in which a probe was not hit each time."""
    for one in stats:
        if not 0 <= one.hits - ROUNDS * CALLS < CALLS:  # the guest makes a few such calls itself
            raise RuntimeError(f"{one.name} was hit {one.hits} times, not {ROUNDS * CALLS}")


def _function(name: str) -> str:
    return CALLED[name][1]


def _measure(guest: Guest, script: str) -> dict[str, float]:
    """Return the least nanoseconds per call of each kind, while bpftrace runs *script* (empty: it does not)."""
    words = ["/root/calls", str(ROUNDS), str(CALLS), *(str(number) for number, _ in CALLED.values())]
    told = guest.run(["/root/bpftrace", "-e", script, "-c", " ".join(words)] if script else words)
    found = dict(line.split() for line in told.splitlines() if line[:1].isdigit() and line.count(" ") == 1)
    return {name: float(found[str(number)]) for name, (number, _) in CALLED.items()}


def _figures(kernel: str, costs: dict[str, float]) -> Iterator[Figure]:
    def figure(name: str, ours: str, reference: str, most: float, against: str) -> Figure:
        def seconds(key: str) -> float | None:
            return costs[key] * 1e-9 if key in costs else None

        return Figure(f"hit, {kernel}: {name}", seconds(ours), seconds(reference), against=against, most=most)

    yield figure("count", "count", "bpftrace count", 0.7, "bpftrace kprobe")
    if "count by kprobe.multi" in costs:
        yield figure("count by kprobe.multi", "count by kprobe.multi", "bpftrace count", 0.7, "bpftrace kprobe")
    yield figure("count by kprobe", "count by kprobe", "bpftrace count", 1.0, "bpftrace kprobe")
    yield figure("histogram of the time", "pair", "bpftrace pair", 0.7, "bpftrace kprobe pair")
    yield figure("histogram of the time", "pair", "bpftrace kfunc pair", 1.0, "bpftrace kfunc pair")
    yield figure("the same by kprobe", "pair by kprobe", "bpftrace pair", 1.0, "bpftrace kprobe pair")
