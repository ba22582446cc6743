"""What a hit costs inside of a process: added nanoseconds per call, beside a bare loop. Prints a table.

A C loop calls a function of an ordinary prologue; each figure is the best of several runs, in processor time, of
the same program, with
the probe in place, minus that of the bare loop.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes import Count, Histogram, arg, comm, cycles, emit, now, pid, tid, uprobe, uretprobe
from kprobes.engines.process.target import Process
from kprobes.model.probe import Probe
from kprobes.session import attach_to, within_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.session import Session

PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
__attribute__((noinline, noclone)) long work(long a, long b)
{
    long values[4] = {a, b, a ^ b, a + b};
    __asm__ volatile("" : : "r"(values) : "memory");
    return values[a & 3] + values[b & 3];
}
static long calls, pace; /* calls a second, 0 for as many as can be */
static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}
static void *loop(void *argument)
{
    double *result = argument;
    struct timespec begin, end;
    long sum = 0;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    long batch = pace ? 500 : calls;
    long long started = now();
    for (long done = 0; done < calls; done += batch) {
        for (long i = 0; i < batch; i++)
            sum += work(i, sum);
        while (pace && now() - started < (done + batch) * 1e9 / pace)
            ;
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    *result = ((end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec)) / calls + (sum == 42);
    return 0;
}
int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    calls = argc > 2 ? atol(argv[2]) : 1000000;
    pace = argc > 3 ? atol(argv[3]) : 0;
    if (pace)
        usleep(100000); /* until the reader has loaded its libraries */
    double result[16] = {0};
    pthread_t all[16];
    for (int i = 0; i < threads; i++)
        pthread_create(&all[i], 0, loop, &result[i]);
    for (int i = 0; i < threads; i++)
        pthread_join(all[i], 0);
    double most = 0;
    for (int i = 0; i < threads; i++)
        most = result[i] > most ? result[i] : most;
    printf("%.3f\n", most);
    return 0;
}
"""
RUNS = 3
CALLS = 2_000_000
EVENTS, PACE = 36_000_000, 12_000_000

hits = Count("hits")
sizes = Histogram("sizes")
took = Histogram("took")


@uprobe("work")
def counted() -> None:
    pass


@uprobe("work")
def summed() -> None:
    hits.add(1)


@uprobe("work")
def sampled() -> None:
    sizes.add(arg(1))


def add_one() -> None:
    hits.add(1)


def inside(program: Path) -> Probe:
    """Return a probe at the third instruction of `work` in *program*, wherever the compiler has put it."""
    words = ["objdump", "-d", "--disassemble=work", "--no-show-raw-insn", str(program)]
    listing = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    first, _, third, *_ = (int(found, 16) for found in re.findall(r"^ +([0-9a-f]+):", listing, re.MULTILINE))
    return uprobe(f"work+{third - first:#x}")(add_one)


@uretprobe("work")
def timed() -> None:
    begun = now()
    yield
    took.add(now() - begun)


@uretprobe("work")
def timed_by_cycles() -> None:
    begun = cycles()
    yield
    took.add(cycles() - begun)


@uprobe("work")
def sent() -> None:
    emit(time=now(), pid=pid(), tid=tid(), a=arg(1), b=arg(2), comm=comm())


def build(directory: Path) -> Path:
    """Compile the program."""
    source, program = directory / "loop.c", directory / "loop"
    source.write_text(PROGRAM)
    subprocess.run(["gcc", "-O2", "-fno-omit-frame-pointer", "-pthread", "-o", program, source], check=True)
    return program


def bare(program: Path, threads: int) -> float:
    """Return the nanoseconds of an unprobed call."""
    return min(
        float(subprocess.run([program, str(threads), str(CALLS)], capture_output=True, check=True).stdout)
        for _ in range(RUNS)
    )


def probed(program: Path, probe: Probe, threads: int, follow: Callable[[Session], None] | None = None) -> float:
    """Return the nanoseconds of a call with *probe* in place."""
    return min(_run(program, probe, threads, follow) for _ in range(RUNS))


def _run(program: Path, probe: Probe, threads: int, follow: Callable[[Session], None] | None) -> float:
    with tempfile.TemporaryFile() as output:
        saved = _redirect(output.fileno())
        try:
            engine = Process.spawn([str(program), str(threads), str(CALLS)]).open()
        finally:
            _restore(saved)
        with attach_to(engine, probe, within=within_of(engine)) as session:
            while not engine.wait(0.01 if follow else 60):
                if follow is not None:
                    follow(session)
            counts = session.stats[0]
            assert counts.hits + (counts.missed or 0) == threads * CALLS, counts
        output.seek(0)
        return float(output.read())


def _redirect(to: int) -> int:
    saved = os.dup(1)
    os.dup2(to, 1)
    return saved


def _restore(saved: int) -> None:
    os.dup2(saved, 1)
    os.close(saved)


def events_a_second(program: Path, events: int = EVENTS, pace: int = PACE) -> tuple[float, int, int]:
    """Return (events a second, events, lost) of one thread that sends *events* at a rate of *pace* a second (0: as
    fast as it can), read as Arrow tables; the time is that from the first table to the last."""
    importlib.import_module("pyarrow.compute")  # takes longer than all events together
    saved = _redirect(os.open(os.devnull, os.O_WRONLY))
    engine = Process.spawn([str(program), "1", str(events), str(pace)]).open()
    _restore(saved)
    with attach_to(engine, sent, within=within_of(engine)) as session:
        rows, begin, end, ended = 0, 0.0, 0.0, False
        while True:
            tables = session.tables(0.01)
            if tables:
                rows += sum(table.num_rows for table in tables)
                end = time.perf_counter()
                begin = begin or end
            elif ended:
                break
            else:
                ended = bool(engine.wait(0))
        counts = session.stats[0]
        assert counts.hits == rows + counts.lost == events, (counts, rows)
        return rows / (end - begin), rows, counts.lost


def main() -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory() as directory:
        program = build(Path(directory))
        one, two = bare(program, 1), bare(program, 2)
        print(f"bare loop                        {one:7.2f} ns a call; two threads {two:.2f}")
        rows = [
            ("count at entry (no handler)", Probe("uprobe", ("work",)), 1, one),
            ("the same, two threads", Probe("uprobe", ("work",)), 2, two),
            ("handler: Count", summed, 1, one),
            ("handler: Count, two threads", summed, 2, two),
            ("handler: Histogram of arg(1)", sampled, 1, one),
            ("handler: Count, mid-function", inside(program), 1, one),
            ("entry + return, latency in ns", timed, 1, one),
            ("entry + return, latency in cycles", timed_by_cycles, 1, one),
        ]
        for label, probe, threads, base in rows:
            print(f"{label:32s} {probed(program, probe, threads) - base:7.2f} ns added", flush=True)
        if hasattr(attach_to, "__name__"):
            rate, events, lost = events_a_second(program)
            print(
                f"events as tables                 {rate / 1e6:7.2f} million a second ({events:,} read, {lost:,} lost)"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
