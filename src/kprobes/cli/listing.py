"""What can be probed, and what is probed.

examples:
  kprobes list 'vfs_*'              functions of this machine's kernel
  kprobes list --vm 'tcp_*'         of a kernel in a box
  kprobes list 'ext4:*'             of a module
  kprobes list 't:sched:*'          tracepoints
  kprobes list -p PID 'libc:str*'   functions of a process
  kprobes list -p PID               the probes in a process: where, how each is armed, and why so
  kprobes list --armed              the kprobes of the kernel, and the probes in all processes
  kprobes list --armed --vm=6.12    those of a kernel in a box (one that runs already: `kprobes vm`)
  kprobes list --blacklist 'do_*'   the code that the kernel keeps probes out of
Functions that can't be probed are left out; the last line says how many, and why.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from kprobes.cli.listed import as_fields, format_listed, is_meant, write_armed, write_blacklist
from kprobes.cli.options import add_target_options, target_of
from kprobes.errors import SymbolNotFoundError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kprobes.cli.parser import Namespace, Parser
    from kprobes.engines.port import Facts
    from kprobes.engines.process.listing import Probed
    from kprobes.engines.targets import Known
    from kprobes.model.listed import Listed

TRACEPOINT = ("t:", "tracepoint:")


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("glob", nargs="?", default="", metavar="GLOB", help="a function or a glob (default: all)")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="json: one object per line")
    parser.add_argument("--armed", action="store_true", help="the probes that are in place, of whoever they are")
    parser.add_argument("--blacklist", action="store_true", help="where the kernel lets no kprobe go")
    add_target_options(parser)


def run(arguments: Namespace) -> int:
    """List what matches."""
    if arguments.command:
        raise UsageError(
            "`kprobes list` runs no command", hint="leave `-- CMD` out; -p PID lists the functions of a running process"
        )
    target = target_of(arguments)
    if arguments.blacklist and (arguments.armed or arguments.pid is not None):
        raise UsageError(
            "the blacklist is a kernel's", hint="leave --armed and -p out; `kprobes info FUNC` says why not"
        )
    if arguments.armed or (arguments.pid is not None and not arguments.glob):
        return _run_armed(arguments, target)
    glob: str = arguments.glob or "*"
    if arguments.pid is not None:
        _write(_functions_of_process(glob, arguments.pid), arguments.format)
        return 0
    gc.disable()  # 100,000 small things that live until the end of the command
    engine = target.look()
    try:
        facts = engine.facts()
        if arguments.blacklist:
            write_blacklist(facts, glob, arguments.format)
        elif glob.startswith(TRACEPOINT):
            _write(_tracepoints(glob.partition(":")[2], facts), arguments.format)
        else:
            _write_functions(glob, facts, arguments.format)
    finally:
        engine.close()
        gc.enable()
    return 0


def _write(rows: Iterable[dict[str, object]], form: str) -> None:
    write, told = sys.stdout.write, json.dumps if form == "json" else _line
    for row in rows:
        write(f"{told(row)}\n")


def _run_armed(arguments: Namespace, target: Known) -> int:
    guest = bool(arguments.vm or arguments.kernel)
    if arguments.pid is None:
        engine = target.open()
        try:
            write_armed(engine.facts(), arguments.glob or "*", arguments.format, must=guest)
        finally:
            engine.close()
    if not guest:
        _write_processes(arguments)
    return 0


def _write_processes(arguments: Namespace) -> None:
    from kprobes.engines.process.listing import list_process, list_processes

    one = arguments.pid is not None
    probed = list_process(arguments.pid) if one else list(list_processes())
    if not probed and arguments.format == "table":
        where = f"process {arguments.pid}" if one else "any process"
        sys.stderr.write(f"no probes are in {where}\n")
    if arguments.pid is None and os.geteuid():
        sys.stderr.write(
            "note: only your own processes were looked at; those of others and the kernel's list take root\n"
        )
    for found in probed:
        rows = [row for row in found.sites if not arguments.glob or is_meant(row, arguments.glob)]
        if arguments.format == "json":
            for row in rows:
                sys.stdout.write(f"{json.dumps(_as_json(found, row))}\n")
            continue
        for row in rows:
            sys.stdout.write(f"{format_listed(row)}\n")
        sys.stdout.flush()
        more = "; there are more than the list has room for" if found.is_cut else ""
        sys.stderr.write(f"{_owner(found)}{more}\n")


def _as_json(found: Probed, row: Listed) -> dict[str, object]:
    return {"pid": found.pid, "owner": found.owner.pid, "owner_alive": found.lives, **as_fields(row)}


def _owner(found: Probed) -> str:
    if found.lives:
        return f"process {found.pid} is probed by process {found.owner.pid}"
    return f"process {found.pid}: who probed it is gone; `kprobes detach {found.pid}` takes the probes away"


def _functions_of_process(glob: str, pid: int) -> Iterator[dict[str, object]]:
    from kprobes.symbols.file import resolve_in_process

    resolution = resolve_in_process(glob, pid)
    for one in resolution.found:
        yield {"name": one.site.symbol or one.site.name, "module": one.object.name}
    for reason, count in resolution.skipped:
        sys.stderr.write(f"{count} left out: {reason}\n")


def _write_functions(glob: str, facts: Facts, form: str) -> None:
    from kprobes.symbols.kernel import GLOB, KernelSymbols

    symbols = KernelSymbols(facts)
    if not GLOB.search(glob) or "+" in glob:
        one = symbols.resolve(glob, traceable=True).found[0]
        _write([{"name": one.site.name, "module": one.site.module, "traceable": one.traceable}], form)
        return
    found = symbols.functions(glob)
    if form == "json":
        traceable = True if found.traceable else None
        _write(({"name": name, "module": module, "traceable": traceable} for name, module, _ in found.found), form)
    else:  # all of a kernel's, in one piece
        sys.stdout.write(
            "".join([f"{name} [{module}]\n" if module else f"{name}\n" for name, module, _ in found.found])
        )
    for note in found.notes(glob):
        sys.stderr.write(f"{note}\n")


def _tracepoints(glob: str, facts: Facts) -> Iterator[dict[str, object]]:
    text = facts.text("events")
    if text is None:
        raise UnsupportedError(
            "the tracepoints can't be listed", hint="tracefs is not mounted, or can't be read by you"
        )
    found = [name for name in text.split() if fnmatchcase(name, glob)]
    if not found:
        raise SymbolNotFoundError(glob, where="the kernel's tracepoints", hint="`kprobes list 't:*'` shows all")
    for name in sorted(found):
        yield {"name": f"t:{name}"}


def _line(row: dict[str, object]) -> str:
    return _named(row["name"], row.get("module"))


def _named(name: object, module: object) -> str:
    return f"{name} [{module}]" if module else f"{name}"
