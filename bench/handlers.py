"""Handlers that benchmarks compile."""

from __future__ import annotations

from kprobes import Count, HashMap, Histogram, arg, comm, emit, now, pid, tid, uretprobe
from kprobes.model.probe import HandlerSource, Probe

calls = Count("calls", by=str)
times = Histogram("times")
seen = HashMap("seen")
NAMES = {"arg": arg, "comm": comm, "emit": emit, "now": now, "pid": pid, "tid": tid, "calls": calls, "times": times,
         "seen": seen}  # fmt: skip
# Ten lines; the numbers differ, so that nothing of one part serves another.
PART = """    size_{n} = arg(2) >> {n} & 0xFFFF
    if size_{n} > {limit} and number % {prime} == 3:
        times.add((now() - start) // {limit})
        calls.add(size_{n}, by=comm())
    elif size_{n} == {n}:
        seen[tid()] += {n}
    total += size_{n} * {prime}
    for step in range(4):
        if number >> (step * 8 + {n}) & 0xFF == {n}:
            emit(number=number, total=total, name=comm(), step=step)
"""


def ten_lines(program: str) -> Probe:
    """Return a return probe of work() in *program*, with a handler of ten lines."""

    @uretprobe(f"{program}:work")
    def handler():
        start = now()
        number = arg(1)
        ret = yield
        if ret > number or number % 7 == 3:
            took = now() - start
            times.add(took // 1000)
            name = comm()
            calls.add(by=name)
            for step in range(4):
                if took >> (step * 8) & 0xFF == 1:
                    emit(took=took, number=number, name=name, pid=pid(), step=step)

    return handler


def many_lines(program: str, lines: int) -> Probe:
    """Return a probe of work() in *program*, with a handler of *lines* lines."""
    head = "def handler():\n    start, number, total = now(), arg(1), 0\n"
    parts = "".join(PART.format(n=n, limit=64 * n, prime=2 * n + 5) for n in range(1, lines // 10 + 1))
    return Probe("uprobe", (f"{program}:work",), HandlerSource("handler", head + parts, names=NAMES))
