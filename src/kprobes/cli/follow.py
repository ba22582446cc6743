"""What every probing command does: open the target, attach, run the workload, follow until it is time to end, sum
up."""

from __future__ import annotations

import sys
import time

from kprobes.cli.options import Limits, limits_of, probes_natively, process_of, target_of
from kprobes.cli.workload import start_workload
from kprobes.frozen import dataclass, replace
from kprobes.model.plan import Way
from kprobes.session import POLL_S, Session, attach_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from types import FrameType, TracebackType
    from typing import TextIO

    from kprobes.cli.parser import Namespace
    from kprobes.cli.workload import Workload
    from kprobes.engines.port import Engine
    from kprobes.events.record import Event
    from kprobes.events.recording import Recorder
    from kprobes.model.probe import Probe
    from kprobes.model.within import Within
    from kprobes.render.summary import ProbeSummary
    from kprobes.session.counts import ProbeStats
else:
    import _signal as signal  # what `signal` wraps in enums, without the 4 ms that these take

MISSED_EXIT = 1


@dataclass(frozen=True, slots=True)
class Job:
    """A command's own part: what it does with events, and between polls."""

    on_events: Callable[[list[Event]], None]
    on_tick: Callable[[Session], None] = lambda _session: None
    on_end: Callable[[Session], None] = lambda _session: None


class Output:
    """Where results go: `-o FILE` (0600, replaced whole at the end), standard error beside a program that keeps its
    own streams, else standard output. A context manager."""

    def __init__(self, arguments: Namespace) -> None:
        self._stream = sys.stderr if arguments.command else sys.stdout
        self._file: AbstractContextManager[TextIO] | None = None
        if arguments.output:
            from kprobes.cli.outfile import replacing

            self._file = replacing(arguments.output)

    def __enter__(self) -> TextIO:
        return self._stream if self._file is None else self._file.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return None if self._file is None else self._file.__exit__(kind, error, trace)


def follow(
    arguments: Namespace,
    probes: Sequence[Probe],
    make_job: Callable[[Session, TextIO], Job],
    recorder: Recorder | None = None,
    attach: Callable[[Engine, Within], Session] | None = None,
) -> int:
    """Carry *probes* out as the options say; return the exit code: the workload's, or 1 where `--strict` found a
    miss. What the handlers see goes to *recorder*. *attach* puts probes in place that are compiled already."""
    limits = limits_of(arguments)
    if arguments.engine == "tracefs":
        probes = [replace(probe, way=probe.way or Way.TRACEFS) for probe in probes]
    with Output(arguments) as stream, TerminatedAsInterrupt():
        native = probes_natively(arguments, probes)
        engine = (process_of(arguments) if native else target_of(arguments)).open()
        try:
            only_files = all(probe.kind in ("uprobe", "uretprobe") for probe in probes)
            workload = start_workload(engine, arguments, native=native, only_files=only_files)
            if attach is not None:
                session = attach(engine, workload.within)
            else:
                session = attach_to(engine, *probes, within=workload.within, recorder=recorder)
        except BaseException:
            engine.close()
            raise
        with session, workload:  # the workload ends first: it needs the engine that the session closes
            if session.warnings:
                from kprobes.cli.problems import write_warnings

                write_warnings(session.warnings, sys.stderr, as_json=arguments.format == "json")
            begin = time.monotonic()
            job = make_job(session, stream)
            try:
                workload.release()
                left = _loop(session, workload, limits, job)
            except KeyboardInterrupt:
                workload.interrupt()
                left = None
            session.detach()
            _drain(session, job, left)
            job.on_end(session)
        if note := getattr(workload, "note", ""):
            sys.stderr.write(f"note: {note}\n")
        clean = _sum_up(session, time.monotonic() - begin)
        status = workload.status
    if status:
        return status
    return MISSED_EXIT if arguments.strict and not clean else 0


def _loop(session: Session, workload: Workload, limits: Limits, job: Job) -> int | None:
    """Follow until it is time to end; return how many events are still asked for, None for any number."""
    end = None if limits.duration is None else time.monotonic() + limits.duration
    left = limits.number
    while not workload.poll() and (end is None or time.monotonic() < end):
        events = session.poll(POLL_S if end is None else max(0.0, min(POLL_S, end - time.monotonic())))
        if left is not None:
            events = events[:left]
            left -= len(events)
        job.on_events(events)
        job.on_tick(session)
        if left == 0:
            break
    return left


def _drain(session: Session, job: Job, left: int | None) -> None:
    """Pass on what came before the detach, *left* events of it at most."""
    while left != 0 and (events := session.poll(0)):
        events = events[:left]
        left = None if left is None else left - len(events)
        job.on_events(events)


def _sum_up(session: Session, elapsed_s: float) -> bool:
    """Write the closing summary and the plan's notes to standard error; return whether nothing was missed, lost or
    failed."""
    from kprobes.cli.definitions import named_stats
    from kprobes.render.summary import FailedAssert, failures, summary
    from kprobes.render.terminal import Terminal

    stats = named_stats(session)
    for note in (*session.plan.notes, *session.arming):
        sys.stderr.write(f"note: {note}\n")
    sys.stderr.write(summary(summaries(stats), elapsed_s, Terminal.of(sys.stderr), dropped=session.dropped_writes))
    failed = [
        FailedAssert(f"{one.file}:{one.line}", one.text, one.message, stats.failed)
        for stats in session.asserts
        if stats.failed
        for one in [stats.assertion]
    ]
    sys.stderr.write(failures(failed, Terminal.of(sys.stderr)))
    return not failed and all(one.clean for one in stats)


def summaries(stats: Sequence[ProbeStats]) -> list[ProbeSummary]:
    """Return what the closing summary tells of *stats*."""
    from kprobes.render.summary import ProbeSummary

    return [
        ProbeSummary(
            one.name,
            one.hits,
            -1 if one.missed is None else one.missed,
            one.lost,
            one.faults,
            "+".join(one.ways),
            unmatched=one.unmatched,
        )
        for one in stats
    ]


class TerminatedAsInterrupt:
    """Lets SIGTERM and SIGHUP end the command as Ctrl-C does, so that it cleans up and sums up."""

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
