"""Handlers that benchmarks compile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes import Count, Histogram, arg, comm, emit, now, pid, uretprobe

if TYPE_CHECKING:
    from kprobes.model.probe import Probe

calls = Count("calls", by=str)
times = Histogram("times")


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
