"""The probe events in the kernel's tracefs: defined by kprobe_events' own lines, to be used by its own files.

They stay until they are removed or the kernel ends: unlike all other probes of this tool.

examples:
  kprobes events add 'p:opens do_sys_openat2 dfd=%di:s32 file=+0(%si):ustring'
  kprobes events add 'r:reads vfs_read $retval' 'p:/usr/bin/bash:0x4245c0'
  kprobes events enable opens
  kprobes events list                      hits and misses, as the kernel's profile tells them
  kprobes events list 'kprobes/*' --format json
  kprobes events disable '*'
  kprobes events filter opens 'dfd != -100 && file ~ "/etc/*"'       0 takes it away
  kprobes events trigger opens 'stacktrace:5 if dfd == 3'           with ! before it: take it away
  kprobes events remove opens
  kprobes events clear                     remove all that nobody uses
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from kprobes.cli.options import ANY_KERNEL, add_target_options, target_of
from kprobes.cli.probe_events import ProbeEvents, one_of
from kprobes.errors import DefinitionError, SyscallError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.cli.parser import Namespace, Parser
    from kprobes.cli.probe_events import ProbeEvent

ACTIONS = ("list", "add", "remove", "clear", "enable", "disable", "filter", "trigger")


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("names", nargs="*", metavar="EVENT", help="GROUP/EVENT, EVENT or a glob; for add: definitions")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="json: one object per event")
    add_target_options(parser)


def run(arguments: Namespace) -> int:
    """Do what was asked for."""
    if arguments.pid is not None:
        raise UsageError("probe events are the kernel's, not a process's", hint="leave -p out; `kprobes list -p PID`")
    if arguments.command:
        raise UsageError("`kprobes events` runs no command", hint="leave `-- CMD` out")
    action, names = arguments.action, arguments.names
    if action in _NEEDED and not names:
        what, hint = _NEEDED[action]
        raise UsageError(f"`kprobes events {action}` needs {what}", hint=hint)
    if action == "add" and not all(name.strip() for name in names):
        raise UsageError("an empty text defines no event", hint=_NEEDED["add"][1])
    if action in _SETTINGS and len(names) != 2:
        example = "'dfd == 3'" if action == "filter" else "'stacktrace:5 if dfd == 3'"
        hint = f"kprobes events {action} opens {example}"
        raise UsageError(f"`kprobes events {action}` needs an event and a text", hint=hint)
    engine = target_of(arguments).open()
    if action != "list" and not getattr(engine, "outlives_us", True):
        kernel = arguments.kernel or arguments.vm
        shown = f"kprobes vm --keep{'' if kernel == ANY_KERNEL else f' --kernel {kernel}'} &"
        sys.stderr.write(f"note: this guest ends with the command, and its events with it; `{shown}` keeps one up\n")
    try:
        events = ProbeEvents(engine.tracefs())  # type: ignore[attr-defined]  # both engines of kernels have it
        return _ACTIONS[action](events, names or ["*"], arguments)
    finally:
        engine.close()


def _list(events: ProbeEvents, names: list[str], arguments: Namespace) -> int:
    found = {one.definition: one for name in names for one in events.matching(name)}
    if not found:
        sys.stderr.write(f"no probe events{'' if names == ['*'] else ' of that name'}\n")
        return 0
    if arguments.format == "json":
        for one in found.values():
            sys.stdout.write(f"{json.dumps({name: getattr(one, name) for name in one.__slots__})}\n")
        return 0
    from kprobes.render.table import Column, TraceTable
    from kprobes.render.terminal import Terminal

    widest = max((len(one.name) for one in found.values()), default=5)
    columns = [Column("event", "str", widest), Column("state", "str", 5), Column("hits", "str", 8)]
    columns += [Column("misses", "str", 6), Column("definition", "str")]
    table = TraceTable(sys.stdout, columns, Terminal.of(sys.stdout))
    for one in found.values():
        state = "on" if one.enabled else "off"
        table.write([[one.name, state, _count(one.hits), _count(one.misses), one.definition]])
        table.write_lines(f"filter {one.filter}".replace("\n", "\n       ").splitlines() if one.filter else [])
        table.write_lines([f"trigger {trigger}" for trigger in one.triggers])
    return 0


def _count(number: int) -> str:
    return "-" if number < 0 else str(number)


def _add(events: ProbeEvents, definitions: list[str], _: Namespace) -> int:
    """Add all of *definitions* or, where one is refused, none."""
    added: list[ProbeEvent] = []
    try:
        for definition in definitions:
            one = events.add(definition)
            if one is not None:
                added.append(one)
    except BaseException as error:
        for before in reversed(added):
            events.take_back(before)
        if not isinstance(error, DefinitionError):
            raise
        sys.stderr.write(_refusal(error, "`kprobes check` tells more about a definition, without a kernel"))
        return 1
    sys.stdout.write("".join(f"{one.definition}\n" for one in added))
    return 0


def _refusal(error: DefinitionError, hint: str) -> str:
    from errno import errorcode

    from kprobes.render.escape import escape

    lines = [f"error: {error.what} ({errorcode.get(error.errno, error.errno)})"]
    if error.command:
        lines.append(f"  {escape(error.command)}")
    if error.indent is not None:
        lines.append(f"  {' ' * error.indent}^")
    if hint:
        lines.append(f"hint: {hint}")
    return "".join(f"{line}\n" for line in lines)


def _remove(events: ProbeEvents, names: list[str], _: Namespace) -> int:
    for name in names:
        for one in one_of(events.matching(name), name):
            events.enable(one, on=False)
            for trigger in one.triggers:  # each keeps the event in use
                events.set(one, "trigger", f"!{trigger.partition(':')[0].split()[0]}")
            events.remove(one)
    return 0


def _clear(events: ProbeEvents, names: list[str], _: Namespace) -> int:
    """Remove all events one by one: those that others made and use stay, and are told of."""
    kept = 0
    for name in names:
        found = events.matching(name)
        for one in found if name == "*" else one_of(found, name):
            try:
                events.remove(one)
            except SyscallError as error:
                kept += 1
                sys.stderr.write(f"note: {error}\n")
    return 1 if kept else 0


def _switch(*, on: bool) -> Callable[[ProbeEvents, list[str], Namespace], int]:
    def act(events: ProbeEvents, names: list[str], _: Namespace) -> int:
        for name in names:
            for one in one_of(events.matching(name), name):
                events.enable(one, on=on)
        return 0

    return act


def _set(file: str) -> Callable[[ProbeEvents, list[str], Namespace], int]:
    def act(events: ProbeEvents, names: list[str], _: Namespace) -> int:
        for one in one_of(events.matching(names[0]), names[0]):
            try:
                events.set(one, file, names[1])
            except DefinitionError as error:
                sys.stderr.write(_refusal(error, _SETTINGS[file].format(name=one.name)))
                return 1
        return 0

    return act


_NEEDED = {
    "add": ("a definition", "kprobes events add 'p:opens do_sys_openat2 dfd=%di:s32'"),
    "remove": ("an event", "`kprobes events list` shows them; '*' means all"),
    "enable": ("an event", "`kprobes events list` shows them; '*' means all"),
    "disable": ("an event", "`kprobes events list` shows them; '*' means all"),
}
# What to do about a text that was refused, by the file it goes to.
_SETTINGS = {
    "filter": "fields and their types are in events/{name}/format; -1 is for those that have a sign (dfd=%di:s32)",
    "trigger": "ACTION[:COUNT] [if FILTER], as `stacktrace:5 if dfd == 3`; actions are traceon, traceoff, snapshot, "
    "stacktrace, enable_event:GROUP:EVENT, disable_event:GROUP:EVENT, hist:...",
}
_ACTIONS: dict[str, Callable[[ProbeEvents, list[str], Namespace], int]] = {
    "list": _list,
    "add": _add,
    "remove": _remove,
    "clear": _clear,
    "enable": _switch(on=True),
    "disable": _switch(on=False),
    "filter": _set("filter"),
    "trigger": _set("trigger"),
}
