"""A probe script: a Python file with decorated handlers.

examples:
  kprobes run examples/opensnoop.py
  kprobes run --vm examples/vfslatency.py --duration 5
  kprobes run --vm=6.1 examples/slower.py --set limit_us=500 --format json
  kprobes run reads.kpb --duration 5           a bundle, see `kprobes export --help`

Each probe that the file defines is attached; Kprobe, Kretprobe and Jprobe objects are registered. Events are shown as
they come, or given to the file's own `show(event)`. At the end its maps are shown, or `report(session)` is called.
"""

from __future__ import annotations

import sys
from types import MappingProxyType

from kprobes.cli.follow import Job, follow
from kprobes.cli.options import add_output_options, add_run_options, add_target_options, positive, target_of
from kprobes.cli.pictures import write_value
from kprobes.errors import KprobesError, UsageError
from kprobes.model.aggregates import Max, Min
from kprobes.model.containers import Queue
from kprobes.model.mapspec import HashMap, MapSpec
from kprobes.model.probe import Probe
from kprobes.planner.settings import setting_called, settings_of, with_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TextIO

    from kprobes.cli.parser import Namespace, Parser
    from kprobes.cli.trace import LineTrace
    from kprobes.events.record import Event
    from kprobes.events.recording import Recorder
    from kprobes.model.setting import Setting
    from kprobes.replay import Replay
    from kprobes.session import Session

MODULE_NAME = "__kprobes__"


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("file", metavar="FILE", help="the script, or a bundle of one")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="give a setting of the script a value"
    )
    parser.add_argument("--settings", action="store_true", help="show the script's settings, and end")
    add_run_options(parser, count=True)
    add_target_options(parser)
    add_output_options(parser)
    group = parser.add_argument_group("recording", "for `kprobes replay` and kprobes.testing.load")
    group.add_argument("--record", metavar="FILE", help="save what the handlers see at each hit there")
    group.add_argument(
        "--record-size", type=positive, default=64, metavar="MIB", help="record at most so much (default: 64)"
    )


def run(arguments: Namespace) -> int:
    """Run the script."""
    from kprobes.export.magic import is_bundle

    if is_bundle(arguments.file):
        from kprobes.cli.run_bundle import run_bundle

        return run_bundle(arguments)
    names = _loaded(arguments)
    if "kprobes.kapi.objects" in sys.modules:  # else the script can't have made any
        from kprobes.cli.run_registered import registrable_of, run_registered

        if things := registrable_of(names):
            return run_registered(arguments, things)
    probes = probes_of(names, arguments.file)
    if arguments.settings:
        return _show_settings(settings_of(probes))
    if arguments.set:
        probes = list(with_settings(probes, values_given(arguments.set, settings_of(probes))))
    as_json = arguments.format == "json"

    def make_job(session: Session, stream: TextIO) -> Job:
        write = shown_by(names, as_json=as_json) or event_writer(session, stream, as_json=as_json)
        return Job(write, on_end=lambda _session: report(session, names, stream, as_json=as_json))

    if not arguments.record:
        return follow(arguments, probes, make_job)
    from kprobes.events.recording import Recorder

    with Recorder(arguments.record, arguments.record_size << 20) as recorder:
        status = follow(arguments, probes, make_job, recorder)
    _tell_recorded(recorder)
    return status


def _loaded(arguments: Namespace) -> dict[str, object]:
    """Return the names of the script, which is loaded before its target is opened, and may look symbols up there."""
    if not (arguments.vm or arguments.kernel):
        return load_script(arguments.file)
    from kprobes.session.lookup import kallsyms_lookup_name, looking_up

    target = target_of(arguments)
    with looking_up(lambda name: kallsyms_lookup_name(name, target)):
        return load_script(arguments.file)


def _tell_recorded(recorder: Recorder) -> None:
    limit = "; the limit was met, later ones are not in it (--record-size)" if recorder.full else ""
    size = recorder.size / (1 << 20)
    sys.stderr.write(f"recorded {recorder.hits:,} contexts, {size:.1f} MiB, in {recorder.path}{limit}\n")


def probes_of(names: Mapping[str, object], path: str) -> list[Probe]:
    """Return the probes of the script *path*, which defines *names*.

    Raises:
        UsageError: there is none.
    """
    found: dict[Probe, None] = {}
    for value in names.values():
        listed = value if isinstance(value, list | tuple) else (value,)
        found |= dict.fromkeys(one for one in listed if isinstance(one, Probe))
    probes = list(found)
    if not probes:
        raise UsageError(f"{path} defines no probe", hint='decorate a function: @kprobe("vfs_read"); see examples/')
    return probes


def shown_by(names: Mapping[str, object], *, as_json: bool) -> Callable[[list[Event]], None] | None:
    """Return what hands events to the script's own `show`, if it has one and *as_json* doesn't rule it out."""
    show = names.get("show")
    return _caller(show) if callable(show) and not as_json else None


def values_given(given: Sequence[str], known: Mapping[str, Setting]) -> dict[str, object]:
    """Return the values of `--set NAME=VALUE`.

    Raises:
        UsageError: one has no value, or one that its setting can't have.
    """
    values: dict[str, object] = {}
    for word in given:
        name, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"--set {word} gives no value", hint="write it as NAME=VALUE: --set min_us=5")
        values[name] = setting_called(name, known).parsed(text)
    return values


def _show_settings(known: Mapping[str, Setting]) -> int:
    for one in known.values():
        sys.stdout.write(f"{one.name}  {one.kind}, {one.default!r} unless set  {one.doc}".rstrip() + "\n")
    if not known:
        sys.stderr.write("the script has no settings\n")
    return 0


def load_script(path: str) -> dict[str, object]:
    """Execute the file *path* as a module called `__kprobes__`, nothing added to the import path; return its names.

    Raises:
        UsageError: it can't be read. KprobesError: it fails; the message says where.
    """
    import linecache

    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - the handlers' sources name the path as given
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"can't read {path!r}: {why}", hint="name a Python file with probes in it") from error
    linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    return run_script(text, path)


def run_script(text: str, path: str, given: Mapping[str, object] = MappingProxyType({})) -> dict[str, object]:
    """Execute *text*, which is called *path*, as `load_script` does, with *given* among its names; return them.

    Raises:
        KprobesError: it fails; the message says where.
    """
    names: dict[str, object] = {"__name__": MODULE_NAME, "__file__": path, **given}
    try:
        exec(compile(text, path, "exec"), names)  # noqa: S102 - running the user's file is what this command is for
    except KprobesError:
        raise
    except Exception as error:
        raise KprobesError(_failure(path, error)) from error
    return names


def event_writer(session: Session | Replay, stream: TextIO, *, as_json: bool) -> Callable[[list[Event]], None]:
    """Return what writes events to *stream*: a table per kind of event, or one JSON object each."""
    if as_json:
        from kprobes.cli.trace import JsonTrace
        from kprobes.events.value import with_names
        from kprobes.render.json_lines import JsonLines

        lines, defined = JsonLines(stream), JsonTrace(session, stream)  # type: ignore[arg-type]  # of a replay it takes what that has

        def row(one: Event) -> dict[str, object]:
            if one.layout.definition:
                return defined.row(one)
            return {"event": one.layout.name, "site": one.site, **with_names(one.fields, session.known)}

        return lambda events: lines.write(map(row, events))
    return EventTables(session, stream).write


class EventTables:
    """A table for each kind of event, one for all definitions; `log` lines are written as they are."""

    def __init__(self, session: Session | Replay, stream: TextIO) -> None:
        from kprobes.render.table import Column, TraceTable
        from kprobes.render.terminal import Terminal

        self._stream = stream
        self._known = session.known
        shown = [
            layout
            for layout in session.plan.events
            if any(one.kind in ("cgroup", "symbol", "symstr") for one in layout.fields)
        ]
        self._named = {layout.id for layout in shown}
        self._tables = {
            layout.id: TraceTable(
                stream,
                [Column(field.name, "named" if field.names else field.kind) for field in layout.fields],
                Terminal.of(stream),
            )
            for layout in session.plan.events
            if layout.fields and not layout.template and not layout.name.startswith(".") and not layout.definition
        }
        self._session = session
        self._defined: LineTrace | None = None

    def write(self, events: list[Event]) -> None:
        """Write *events* in order."""
        from kprobes.render.escape import escape

        for event in events:
            table = self._tables.get(event.layout.id)
            if event.layout.definition:
                self._lines().write([event])
            elif table is None:
                self._stream.write(f"{escape(event.text)}\n")
            else:
                table.write([tuple(map(self._known, event)) if event.layout.id in self._named else tuple(event)])
        if events:
            self._stream.flush()

    def _lines(self) -> LineTrace:
        """Return what writes the events of definitions."""
        if self._defined is None:
            from kprobes.cli.trace import LineTrace

            self._defined = LineTrace(self._session, self._stream)  # type: ignore[arg-type]  # as above
        return self._defined


def _caller(show: Callable[[Event], object]) -> Callable[[list[Event]], None]:
    def write(events: list[Event]) -> None:
        for event in events:
            show(event)
        if events:
            sys.stdout.flush()

    return write


def report(session: Session | Replay, names: Mapping[str, object], stream: TextIO, *, as_json: bool) -> None:
    """Write what the maps of the script hold, or let its own `report` do that."""
    own = names.get("report")
    if callable(own) and not as_json:
        own(session)
        return
    used = {layout.name for layout in session.plan.maps}
    for value in dict.fromkeys(value for value in names.values() if isinstance(value, MapSpec)):
        if value.name in used:
            # What waits in a queue can only be taken; nobody else wants it any more.
            held = session.take(value) if isinstance(value, Queue) else session[value]
            if isinstance(value, HashMap) and not held and not as_json:
                continue  # what a script keeps between hits has all been used up
            write_value(value.name, held, stream, as_json=as_json, adds_up=not isinstance(value, Min | Max))
    if as_json:
        _write_troubles(session, stream)


def _write_troubles(session: Session | Replay, stream: TextIO) -> None:
    """Write an object for each assert that failed, and for each probe with calls whose return was not seen."""
    from kprobes.render.json_lines import JsonLines

    lines = JsonLines(stream)
    for stats in session.asserts:
        one = stats.assertion
        if stats.failed:
            what = {"assert": one.text, "message": one.message, "file": one.file, "line": one.line}
            lines.write([{**what, "failed": stats.failed}])
    lines.write({"probe": one.name, "unmatched": one.unmatched} for one in session.stats if one.unmatched)


def _failure(path: str, error: Exception) -> str:
    """Say what went wrong in the script, and on which of its lines."""
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}: {error.msg}"
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{path}:{line}: {type(error).__name__}: {error}"
