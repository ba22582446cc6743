"""One line per hit, with arguments.

examples:
  kprobes trace vfs_read                                 arguments by the C prototype's names
  kprobes trace r:vfs_read                               what it returned, and how long it took
  kprobes trace vfs_write --if 'count > 4096' -n 10
  kprobes trace vfs_open --print 'path.dentry.d_name.name.string(32)'
  kprobes trace --vm do_unlinkat --stack                 in a kernel in a box, with kernel stacks
  kprobes trace --vm vfs_read -- cat /proc/version       while a command runs in the guest
  kprobes trace t:sched:sched_switch --format json
  kprobes trace 'p:opened do_sys_openat2 dfd=%di:s32 name=+0(%si):string' --filter 'dfd == -100'

EXPR is an expression of the handler language: parameters by name, `arg(1)`, `regs.di`, `retval`, fields (`file.f_pos`),
and the words comm, pid, tid, uid, cpu, now. Beside a definition it knows what that fetches, by name.
"""

from __future__ import annotations

from kprobes.cli.definitions import (
    add_definition_options,
    check_filter,
    definition_of,
    is_definition,
    json_arguments,
    show_arguments,
)
from kprobes.cli.follow import Job, follow
from kprobes.cli.options import add_output_options, add_run_options, add_target_options
from kprobes.cli.places import SPELLINGS, probes_of
from kprobes.cli.rows import split_expressions
from kprobes.errors import UsageError
from kprobes.model.probe import AutoHandler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from kprobes.cli.parser import Namespace, Parser
    from kprobes.events.record import Event
    from kprobes.model.probe import Probe
    from kprobes.session import Session

TIMES = ("start", "delta", "boot", "wall")
HEAD = ("_time", "_cpu", "_pid", "_tid", "_comm", "_duration", "_stack")


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("probes", nargs="+", metavar="PROBE", help="what to probe, see below")
    parser.add_argument("--if", dest="condition", default="", metavar="EXPR", help="only hits for which EXPR holds")
    parser.add_argument("--print", dest="prints", default="", metavar="EXPR,...", help="show these, not the arguments")
    parser.add_argument("--stack", action="store_true", help="show the kernel stack of each hit")
    parser.add_argument(
        "--time",
        choices=TIMES,
        default="start",
        help="show the time since the first line, since the line before (delta), since boot, or of day (wall)",
    )
    add_run_options(parser, count=True)
    add_target_options(parser)
    add_output_options(parser, ftrace=True)
    add_definition_options(parser, strings=True)
    parser.epilog = f"{SPELLINGS}\n{parser.epilog or ''}"


def run(arguments: Namespace) -> int:
    """Trace until told to end."""
    handler = AutoHandler(
        "trace", arguments.condition, tuple(split_expressions(arguments.prints)), stack=arguments.stack
    )
    if arguments.format == "ftrace" and (arguments.stack or arguments.time != TIMES[0]):
        option = "--stack" if arguments.stack else "--time"
        raise UsageError(f"{option} doesn't go with --format ftrace", hint="the kernel's lines have their own columns")
    probes = traced(arguments, handler)

    def make_job(session: Session, stream: TextIO) -> Job:
        if arguments.format == "ftrace":
            from kprobes.cli.ftrace_lines import FtraceTrace

            lines = FtraceTrace(session, stream, headed=bool(arguments.output))
            return Job(lines.write, on_end=lines.end)
        as_json = arguments.format == "json"
        writer = JsonTrace(session, stream) if as_json else LineTrace(session, stream, arguments.time)
        return Job(writer.write)

    return follow(arguments, probes, make_job)


def traced(arguments: Namespace, handler: AutoHandler) -> list[Probe]:
    """Return the probes that are named, definitions among them.

    Raises:
        UsageError: there is a filter, and no definition that it could be for.
    """
    found: list[Probe] = []
    for text in arguments.probes:
        if is_definition(text):
            found.append(definition_of(text, arguments, handler))
        else:
            found += probes_of([text], handler, user=in_process(arguments))
    check_filter(arguments, arguments.probes)
    return found


def in_process(arguments: Namespace) -> bool:
    """Return whether a probe without a kind means a place in a process."""
    return not (arguments.vm or arguments.kernel) and bool(arguments.pid is not None or arguments.command)


class JsonTrace:
    """One object per hit: `time_ns` (of `now()`), `time` (UTC), `probe`, `cpu`, `pid`, `tid`, `comm`, `args`, and
    `duration_ns` of a return."""

    def __init__(self, session: Session, stream: TextIO) -> None:
        from kprobes.events.clock import format_utc
        from kprobes.events.value import with_names
        from kprobes.render.json_lines import JsonLines

        self._session = session
        self._with_names = with_names
        self._format_utc = format_utc
        self._lines = JsonLines(stream)

    def write(self, events: list[Event]) -> None:
        """Write *events*."""
        self._lines.write([self.row(event) for event in events])

    def row(self, event: Event) -> dict[str, object]:
        """Return *event* as an object."""
        fields = event.fields
        row: dict[str, object] = {"time_ns": fields.get("_time")}
        if "_time" in fields:
            row["time"] = self._format_utc(self._session.wall_ns(fields["_time"]))
        row["probe"] = event.site
        if event.layout.definition:
            return self._defined(row, event)
        row |= {name[1:]: fields[name] for name in HEAD[1:5] if name in fields}
        if "_duration" in fields:
            row["duration_ns"] = fields["_duration"]
        row["args"] = self._with_names(
            {name: value for name, value in fields.items() if name not in HEAD}, self._session.known
        )
        if "_stack" in fields:
            row["stack"] = self._session.stack(fields["_stack"])
        return row

    def _defined(self, row: dict[str, object], event: Event) -> dict[str, object]:
        """Return the rest of the row of a definition's event."""
        fields = event.fields
        row["event"] = event.layout.name
        row |= {name[1:]: fields[name] for name in HEAD[1:5]}
        where = {name[1:]: fields[name] for name in ("_ip", "_func", "_ret") if name in fields}
        row |= self._with_names(where, self._session.known)
        row["args"] = self._with_names(json_arguments(event), self._session.known)
        if "_stack" in fields:
            row["stack"] = self._session.stack(fields["_stack"])
        return row


class LineTrace:
    """A line per hit: the time, pid, comm, the place, then `name=value`. *time* is one of `TIMES`."""

    def __init__(self, session: Session, stream: TextIO, time: str = "start") -> None:
        from kprobes.render.table import Column, TraceTable
        from kprobes.render.terminal import Terminal

        self._session = session
        self._time = time
        self._start: int | None = None
        names = {field.name for layout in session.plan.events for field in layout.fields}
        self._timed = "_duration" in names
        self._stacks = "_stack" in names
        shown = [site.name for site in session.plan.sites]
        widest = max(map(len, [*shown, *(event.name for event in session.plan.events)]), default=8)
        columns = [
            Column("time", "str", 15) if time == "wall" else Column("time", "time"),
            Column("cpu", "uint", 3),
            Column("pid", "uint", 7),
            Column("comm", "str", 15),
            Column("function", "str", min(widest, 32)),
        ]
        if self._timed:
            columns.append(Column("took us", "str", 9))
        columns.append(Column("arguments", "text"))
        self._table = TraceTable(stream, columns, Terminal.of(stream))
        self._stream = stream

    def write(self, events: list[Event]) -> None:
        """Write *events*."""
        if not events:
            return
        if not self._stacks:
            self._table.write([self._row(event) for event in events])
        for event in events if self._stacks else ():
            self._table.write([self._row(event)])
            self._table.write_lines(self._session.stack(event["_stack"]))
        self._stream.flush()

    def _row(self, event: Event) -> list[object]:
        fields, site = event.fields, event.layout.name if event.layout.definition else event.site
        row: list[object] = [self._shown_time(fields["_time"]), fields["_cpu"], fields["_pid"], fields["_comm"], site]
        if self._timed:
            took = fields.get("_duration")
            row.append(None if took is None else f"{took / 1000:9.1f}")
        known = self._session.known
        if event.layout.definition:
            row.append(show_arguments(event, known))
            return row
        row.append(" ".join(f"{name}={show(known(value))}" for name, value in fields.items() if name not in HEAD))
        return row

    def _shown_time(self, time_ns: int) -> int | str:
        if self._time == "wall":
            from kprobes.events.clock import format_local

            return format_local(self._session.wall_ns(time_ns))
        if self._time == "boot":
            return time_ns
        start = time_ns if self._start is None else self._start
        if self._time == "delta" or self._start is None:
            self._start = time_ns
        return max(0, time_ns - start)


def show(value: object) -> str:
    """Return *value* as an argument is shown: strings in quotes, addresses in hexadecimal."""
    return f'"{value}"' if isinstance(value, str) else str(value)
