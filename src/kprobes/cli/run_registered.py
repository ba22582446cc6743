"""`kprobes run FILE` where the file has the kernel's own objects: they are registered, and what they print is shown."""

from __future__ import annotations

import sys
import time
from itertools import islice

from kprobes.cli.follow import MISSED_EXIT, Output, TerminatedAsInterrupt, summaries
from kprobes.cli.options import limits_of, process_of, target_of
from kprobes.cli.workload import start_workload
from kprobes.errors import UsageError
from kprobes.kapi.module import Module
from kprobes.kapi.objects import Jprobe, Kprobe, Kretprobe
from kprobes.model.probe import Probe
from kprobes.render.escape import escape
from kprobes.render.json_lines import JsonLines
from kprobes.render.summary import summary
from kprobes.render.terminal import Terminal
from kprobes.session import POLL_S

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TextIO

    from kprobes.cli.parser import Namespace
    from kprobes.cli.workload import Workload
    from kprobes.kapi.objects import Registrable

# Options that are for handlers of the other kind.
_REFUSED = {"set": "--set", "settings": "--settings", "record": "--record"}


def registrable_of(names: Mapping[str, object]) -> list[Registrable]:
    """Return the objects among *names* that can be registered, also out of lists; the probe in a return probe is a part
    of it.

    Raises:
        UsageError: there are probes of the other kind, too.
    """
    given = [one for value in names.values() for one in (value if isinstance(value, list | tuple) else (value,))]
    found = dict.fromkeys(one for one in given if isinstance(one, Kprobe | Kretprobe | Jprobe))
    if found and any(isinstance(one, Probe) for one in given):
        raise UsageError(
            "the script has both decorated handlers and Kprobe, Kretprobe or Jprobe objects",
            hint="write two scripts, or a program of its own with `attach` and `Module`",
        )
    parts = {one.kp for one in found if not isinstance(one, Kprobe)}
    return [one for one in found if one not in parts]


def run_registered(arguments: Namespace, things: list[Registrable]) -> int:
    """Register *things*, show what their handlers print until it is time to end, and unregister them; return the exit
    code: the workload's."""
    for name, option in _REFUSED.items():
        if getattr(arguments, name):
            raise UsageError(
                f"{option} doesn't go with Kprobe, Kretprobe and Jprobe objects",
                hint='it is for decorated functions: @kprobe("vfs_read")',
            )
    native = _in_process(arguments)
    target = process_of(arguments) if native else target_of(arguments)
    with Output(arguments) as stream, TerminatedAsInterrupt(), Module(target) as module:
        with start_workload(module.engine, arguments, native=native) as workload:
            begin = time.monotonic()
            left = arguments.number
            try:
                module.register(*things)
                workload.release()
                left = _show(module, workload, arguments, stream)
            except KeyboardInterrupt:
                workload.interrupt()
                left = None
            ones = [one.kp.registration for one in things]
            stats = [each for one in ones if one is not None for each in module.stats_of(one)]
            module.unregister(*things)
            _write(islice(module.kmsg(0), left), arguments, stream)
        sys.stderr.write(summary(summaries(stats), time.monotonic() - begin, Terminal.of(sys.stderr)))
    if workload.status:
        return workload.status
    return MISSED_EXIT if arguments.strict and not all(one.clean for one in stats) else 0


def _in_process(arguments: Namespace) -> bool:
    inside = arguments.pid is not None or (arguments.command and not (arguments.vm or arguments.kernel))
    if inside and arguments.engine not in ("auto", "process"):
        raise UsageError(
            f"--engine {arguments.engine} doesn't go with Kprobe, Kretprobe and Jprobe objects",
            hint="in a process they are carried out by the process engine",
        )
    return bool(inside)


def _show(module: Module, workload: Workload, arguments: Namespace, stream: TextIO) -> int | None:
    """Show lines until it is time to end; return how many are still asked for, None for any number."""
    limits = limits_of(arguments)
    end = None if limits.duration is None else time.monotonic() + limits.duration
    left = limits.number
    while left != 0 and not workload.poll() and (end is None or time.monotonic() < end):
        shown = _write(islice(module.kmsg(POLL_S), left), arguments, stream)
        left = None if left is None else left - shown
    return left


def _write(lines: Iterable[str], arguments: Namespace, stream: TextIO) -> int:
    """Write *lines*; return how many there were."""
    rows, count = JsonLines(stream), 0
    for count, line in enumerate(lines, 1):  # noqa: B007 - it is how many there were
        if arguments.format == "json":
            rows.write([{"message": line}])
        else:
            stream.write(f"{escape(line)}\n")
    stream.flush()
    return count
