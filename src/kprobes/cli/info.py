"""Prototype of a function, and whether and how it can be probed.

examples:
  kprobes info vfs_read
  kprobes info --vm=6.1 tcp_v4_connect
  kprobes info --format json do_exit
  kprobes info libc:malloc          of a library or a program: prototype, source line, where it was inlined
  kprobes info ./mytool@parse.c:42
  kprobes info -p PID libc:malloc   how it would be armed in that process, and why so
  kprobes info latency.kpb          what a bundle holds, and what it is for; nothing of it is run
  kprobes info parse -- ./mytool    the same in the process that a command becomes, which is ended before it runs
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from kprobes.cli.definitions import is_definition
from kprobes.cli.info_bundle import names_bundle, show_bundle
from kprobes.cli.options import add_target_options, process_of, target_of
from kprobes.cli.places import KINDS
from kprobes.errors import FormatError, SymbolNotFoundError, TypeNotFoundError, UnprobeableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kprobes.cli.parser import Namespace, Parser
    from kprobes.engines.port import Facts
    from kprobes.model.features import Features
    from kprobes.symbols.btf_types import KernelTypes
    from kprobes.symbols.explain import Explanation
    from kprobes.symbols.file import FileResolution


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument(
        "function", metavar="FUNC", help="a kernel function, module:function, a place in a program, or a bundle"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="json: one object")
    add_target_options(parser)


def run(arguments: Namespace) -> int:
    """Explain one function, or tell of a bundle."""
    if names_bundle(arguments.function):
        return show_bundle(arguments.function, as_json=arguments.format == "json")
    target = target_of(arguments)  # refuses options that contradict each other
    if arguments.command and (arguments.vm or arguments.kernel):
        raise UsageError("telling of a function of a kernel runs no command", hint="leave `-- CMD` out")
    kind, place = _spelled(arguments.function)
    if arguments.command:
        return _show(arguments, _explain_in_command(arguments, place))
    if arguments.pid is not None:
        return _show(arguments, _explain_in_process(place, arguments.pid))
    if not (arguments.vm or arguments.kernel) and (kind[:1] == "u" or _is_of_a_file(place)):
        return _show(arguments, _explain_in_file(place))
    _refuse_others(place)
    engine = target.open()
    try:
        facts = engine.facts()
        known = _explain(place, facts)
        ways = [] if known.refusal else _ways(known, facts.features)
    finally:
        engine.close()
    if arguments.format == "json":
        row = {name: getattr(known, name) for name in known.__slots__}
        sys.stdout.write(f"{json.dumps({**row, 'ways': ways})}\n")
    else:
        sys.stdout.write(_page(known, ways))
    return 0


def _show(arguments: Namespace, known: dict[str, object]) -> int:
    if arguments.format == "json":
        sys.stdout.write(f"{json.dumps(known)}\n")
    else:
        from kprobes.symbols.source_lines import shown_copies

        sys.stdout.write(_rows_of((k, shown_copies(v) if isinstance(v, list) else str(v)) for k, v in known.items()))
    return 0


def _spelled(text: str) -> tuple[str, str]:
    """Return the kind before the place *text*, empty where there is none, and the place.

    Raises:
        UsageError: it is a definition or a tracepoint.
    """
    prefix, colon, rest = text.partition(":")
    kind = KINDS.get(prefix, "") if colon else ""
    if is_definition(text):
        raise UsageError(f"{text!r} is a definition", hint="name its function; `kprobes check` judges definitions")
    if kind == "tracepoint":
        raise UsageError(f"{text!r} is a tracepoint", hint=f"`kprobes list {text!r}` tells whether it is there")
    return kind, rest if kind else text


def _refuse_others(place: str) -> None:
    """Raise where *place* is more or less than one function of a kernel."""
    if "+" in place or place[:1].isdigit():
        raise UsageError(f"{place!r} is an instruction", hint=f"`kprobes explain {place}` tells about it")
    if any(letter in place for letter in "*?["):
        raise UsageError(f"{place!r} is many functions", hint=f"`kprobes list {place!r}` lists them")


def _is_of_a_file(place: str) -> bool:
    """Return whether *place* is one in a program or library, not a function of the kernel or of a module of it."""
    if "/" in place or "@" in place:
        return True
    name, colon, _ = place.partition(":")
    if not colon or os.path.isdir(f"/sys/module/{name}"):  # noqa: PTH112
        return False
    from kprobes.symbols.objects import MachineObjects

    try:
        return bool(MachineObjects().find(name))
    except SymbolNotFoundError:
        return False


def _explain_in_file(place: str) -> dict[str, object]:
    from kprobes.symbols.file import resolve_file

    try:
        return _explain_places(resolve_file(place))
    except UnprobeableError as error:
        return {"function": place, "can be probed": f"no: {error.reason}", "hint": error.hint}


def _explain_in_command(arguments: Namespace, place: str) -> dict[str, object]:
    """Tell of *place* in the process that the command becomes; it is ended where its program would begin."""
    from kprobes.engines.process.engine import ProcessEngine

    engine = process_of(arguments).open()
    assert isinstance(engine, ProcessEngine)
    try:
        return _explain_in_process(place, engine.pid, held=True)
    finally:
        engine.close()


def _explain_in_process(place: str, pid: int, *, held: bool = False) -> dict[str, object]:
    from kprobes.engines.process.preview import preview
    from kprobes.model.probe import Probe
    from kprobes.model.within import Within
    from kprobes.planner.process import plan_process
    from kprobes.symbols.file import resolve_in_process

    try:
        resolution = resolve_in_process(place, pid)
    except UnprobeableError as error:
        return {"function": place, "can be probed": f"no: {error.reason}", "hint": error.hint}
    one = resolution.found[0]
    found = _explain_places(resolution)
    kinds = ("uprobe",) if one.site.offset or not one.site.symbol else ("uprobe", "uretprobe")
    for kind in kinds:
        label = "by a probe" if kind == "uprobe" else "by its return"
        where = f"{one.site.path}:{one.site.symbol}+{one.site.offset:#x}" if one.site.symbol else place
        try:
            (row, *_) = preview(pid, plan_process((Probe(kind, (where,)),), Within(pid, native=True)), held=held)
        except UnprobeableError as error:
            found[label] = f"no: {error.reason}"
        else:
            found["address"] = hex(row.address)
            found[label] = f"{row.way}: {row.why}"
    return found


def _explain_places(resolution: FileResolution) -> dict[str, object]:
    """Return what is known about the first of the places, by label."""
    from kprobes.symbols.source_lines import inlined_copies, prototype, source_line

    one = resolution.found[0]
    found: dict[str, object] = {"function": one.site.name}
    untold = None
    if one.site.path:
        is_entry = not one.site.offset and one.site.symbol
        try:
            found["prototype"] = prototype(one) if is_entry else ""
            found["source"] = source_line(one)
            found["inlined"] = inlined_copies(one.site.symbol, one.object) if is_entry else []
        except FormatError as problem:
            untold = str(problem)
    found = {label: text for label, text in found.items() if text}
    found["object"] = one.site.path or "none"
    found["file offset"] = hex(one.site.address + one.site.offset)
    found["size"] = f"{one.size} bytes" if one.size else "not known"
    if len(resolution.found) > 1:
        found["note"] = f"{len(resolution.found)} places match: this is the first"
    if untold:
        found["no types"] = untold
    return found


def _explain(name: str, facts: Facts) -> Explanation:
    from kprobes.symbols.btf_types import KernelTypes
    from kprobes.symbols.explain import explain
    from kprobes.symbols.kernel import KernelSymbols

    types: KernelTypes | None
    try:
        types = KernelTypes.load(facts)
    except TypeNotFoundError:
        types = None
    return explain(name, KernelSymbols(facts), types, facts)


def _ways(known: Explanation, features: Features) -> list[str]:
    answers = {
        "fentry": bool(features.fentry) and bool(known.prototype) and known.traceable is not False,
        "kprobe.multi": bool(features.kprobe_multi) and known.traceable is not False,
        "kprobe": bool(features.kprobe),
    }
    return [way for way, possible in answers.items() if possible]


def _page(known: Explanation, ways: list[str]) -> str:
    rows = [
        ("function", f"{known.module}:{known.name}" if known.module else known.name),
        ("prototype", known.prototype or "not known (no BTF for it): use arg(1), regs.sp, retval"),
        ("address", f"{known.address:#x}, {known.size} bytes" if known.address else "hidden (needs CAP_SYSLOG)"),
        ("can be probed", f"no: {known.refusal}" if known.refusal else "yes" if ways else "not on this kernel"),
        ("ways in", ", ".join(ways)),
        ("ftrace", {True: "reaches it", False: "does not reach it (notrace)", None: ""}[known.traceable]),
        ("copies", ", ".join(known.copies)),
        ("steadier", ", ".join(f"t:{name}" for name in known.tracepoints)),
    ]
    return _rows_of(rows)


def _rows_of(rows: Iterable[tuple[str, str]]) -> str:
    from kprobes.render.escape import escape

    return "".join(f"{label:<14} {escape(text)}\n" for label, text in rows if text)
