"""Compiled plans on disk, by content: the same request for the same target finds its plan without LLVM, BTF or
kallsyms.

The key covers everything a plan depends on: the handlers' text and whatever they name, the places, the target's
stamp and
features, and the code of kprobes itself. A handler that names something whose text can't be told is compiled each time.
"""

from __future__ import annotations

import os
from types import FunctionType

from kprobes.errors import CompileError, FormatError, UsageError
from kprobes.frozen import replace
from kprobes.model.plan import Way
from kprobes.model.probe import AutoHandler, FetchHandler, HandlerSource, Probe
from kprobes.model.store import digest_of, plan_from_store, plan_to_store
from kprobes.model.within import ANYWHERE, Within
from kprobes.symbols.cache import read_cached, write_cached
from kprobes.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kprobes.model.facts import Facts
    from kprobes.model.plan import Plan

CODE = (
    "compiler/front", "compiler/fetch", "compiler/back", "compiler/back/bpf", "compiler/back/native", "compiler/ir",
    "grammar", "planner", "symbols", "symbols/dwarf", "model",
)  # fmt: skip
FILE_KINDS = frozenset({"uprobe", "uretprobe"})
_ROOT = __file__.rpartition("/planner/")[0]
_PLAIN = (int, str, bool, bytes, type(None))


class _UncacheableError(Exception):
    """A handler names something that has no text of its own."""


def cached_plan(
    probes: Sequence[Probe], facts: Facts, avoid: frozenset[str] = frozenset(), *, within: Within = ANYWHERE
) -> Plan:
    """Return the plan for *probes*, from the disk where the same one was made before.

    *within* limits probes of files to one process.

    Raises:
        KprobesError: as `plan_probes`.
    """
    name = _name(probes, (facts.stamp(), *_features(probes, facts), f"{sorted(avoid)}"), within)
    found = _load(name) if name else None
    if found is None:
        plan = _planned(probes, facts, avoid, within)
        found = replace(plan, key=f"{plan.key} {file_stamps(plan)}".strip())
        if name:
            write_cached(name, [plan_to_store(found)])
    return limited_to(found, within.pid)


def _planned(probes: Sequence[Probe], facts: Facts, avoid: frozenset[str], within: Within) -> Plan:
    if any(probe.way == Way.TRACEFS for probe in probes):
        from kprobes.planner.tracefs import plan_tracefs

        return plan_tracefs(probes, facts, within=within)
    from kprobes.compiler.back.llvm import prepare

    prepare()
    from kprobes.planner.build import plan_probes

    return plan_probes(probes, facts, avoid=avoid, within=within)


def cached_process_plan(probes: Sequence[Probe], within: Within) -> Plan:
    """Return the plan for *probes* in the process that *within* names, from the disk where the same one was made for a
    process of the same files.

    Raises:
        KprobesError: as `plan_process`.
    """
    name = _name(probes, ("native",), within)
    found = _load(name) if name else None
    if found is None:
        from kprobes.compiler.back.llvm import prepare

        prepare(native=True)
        from kprobes.planner.process import plan_process

        plan = plan_process(probes, within)
        found = replace(plan, key=file_stamps(plan))
        if name and all(site.path for site in plan.sites):  # what lies in no file lies elsewhere in the next process
            write_cached(name, [plan_to_store(found)])
    return found


def limited_to(plan: Plan, pid: int) -> Plan:
    """Return *plan* with its probes of files limited to the process *pid*; no plan on disk names a process."""
    if pid < 0:
        return plan
    return replace(
        plan,
        attachments=tuple(replace(one, pid=pid) for one in plan.attachments),
        traced=tuple(replace(one, pid=pid if plan.sites[one.site].path else -1) for one in plan.traced),
    )


def file_stamps(plan: Plan) -> str:
    """Return a text that changes when a file does that *plan* probes, or has types from, or would have."""
    paths = dict.fromkeys(
        [*(site.path for site in plan.sites if site.path), *(one.path for one in plan.unwinding), *plan.sources]
    )
    return " ".join(_stamp(path) for path in paths)


def _stamp(path: str) -> str:
    try:
        found = os.stat(path)  # noqa: PTH116 - pathlib would cost 5 ms of every start
    except OSError:
        return f"{path}:gone"
    return f"{path}:{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


def _load(name: str) -> Plan | None:
    data = read_cached(name)
    if data is None:
        return None
    try:
        plan = plan_from_store(data)
    except FormatError:
        return None  # written by another version or cut short: it is made again
    stamps = file_stamps(plan)
    return plan if not stamps or plan.key.endswith(stamps) else None


def _name(probes: Sequence[Probe], target: Sequence[str], within: Within) -> str:
    """Return the name of a plan for a target that *target* tells from others; empty where it can't be kept."""
    try:
        texts = [code_stamp(), *target, *_ingredients(probes)]
    except _UncacheableError:
        return ""
    content = "\0".join(texts).encode("utf-8", "surrogateescape")
    if any(probe.kind in FILE_KINDS for probe in probes):
        content += b"\0" + _surroundings(within)
    return f"plan-{digest_of(content, 20).hex()}"


def _surroundings(within: Within) -> bytes:
    """Return what names of files mean: what the process has mapped, and the program and the loader's cache."""
    searched = f"{os.environ.get('PATH')} {os.environ.get('KPROBES_DEBUG_DIR')}"
    machine = f"{within.program} {_stamp('/etc/ld.so.cache')} {searched} {os.getcwd()}".encode()  # noqa: PTH109
    if within.pid > 0 and not within.program:
        try:
            with open(f"/proc/{within.pid}/maps", "rb") as file:  # noqa: PTH123
                return machine + b"\n".join(sorted({line.split(None, 5)[-1] for line in file if b"/" in line}))
        except OSError:
            return os.urandom(8)
    return machine


def _features(probes: Sequence[Probe], facts: Facts) -> list[str]:
    # For probes of files the kernel's stamp says enough.
    return [repr(facts.features)] if any(probe.kind not in FILE_KINDS for probe in probes) else []


def _ingredients(probes: Sequence[Probe]) -> Iterator[str]:
    for probe in probes:
        what = (probe.kind, probe.places, probe.maxactive, probe.way, probe.unsafe, probe.on_fault, probe.record)
        yield repr((*what, probe.settings))
        yield from _handler(probe.handler)


def _handler(handler: HandlerSource | AutoHandler | FetchHandler | None) -> Iterator[str]:
    if isinstance(handler, HandlerSource):
        yield from _source(handler, set())
    else:
        yield repr(handler)


def _source(source: HandlerSource, seen: set[str]) -> Iterator[str]:
    """Yield the text of a handler and of everything it names, each once."""
    yield f"{source.file}:{source.line}:{source.indent}:{source.calling!r}\n{source.text}"
    for word in sorted(_words(source.text) & source.names.keys()):
        if word in seen:
            continue
        seen.add(word)
        yield from _named(word, source.names[word], seen)


def _words(text: str) -> set[str]:
    """Return the identifiers in *text*, and perhaps more words."""
    return set("".join([letter if letter == "_" or letter.isalnum() else " " for letter in text]).split())


def _named(word: str, value: object, seen: set[str]) -> Iterator[str]:
    if _is_word(value):
        yield word
    elif _is_plain(value):
        yield f"{word}={type(value)!r} {value!r} {_layout(value)}"
    elif type(value).__module__ == "kprobes.model.registered":
        yield f"{word}={_registered(value)}"
    elif isinstance(value, FunctionType):
        from kprobes.compiler.front.source import source_of

        try:
            text = source_of(value)
        except CompileError:  # it may only be a word in the text: whether it is meant, the compiler says
            raise _UncacheableError from None
        yield from _source(text, seen)
    elif isinstance(value, type) or type(value).__module__ == "kprobes.model.cwords":
        yield f"{word}={_type(value)}"
    else:
        raise _UncacheableError


def _registered(value: object) -> str:
    """Return what a handler of a registered probe is called with, as text."""
    from kprobes.model.registered import Instance  # few plans have one

    if not isinstance(value, Instance):
        return repr(value)
    data = _type(value.data) if isinstance(value.data, type) else value.data
    return f"{value.rp!r} {value.returns_to} {data}"


def _layout(value: object) -> str:
    """Return the layout of a map: its repr doesn't tell that of a struct class it holds."""
    find = getattr(value, "layout", None)
    try:
        return repr(find(1)) if find else ""
    except UsageError:
        raise _UncacheableError from None


def _type(value: object) -> str:
    """Return what tells all of a C type, a struct class or an enum; other classes can hold anything."""
    from kprobes.model.structs import fingerprint, is_enum, shape_of

    if isinstance(value, type) and shape_of(value) is None and not is_enum(value):
        raise _UncacheableError
    return fingerprint(value)


def _is_word(value: object) -> bool:
    return type(value).__module__ == "kprobes.model.words"


def _is_plain(value: object) -> bool:
    """Return whether the repr of *value* tells all of it: maps, constants, and sequences of them."""
    if isinstance(value, tuple | list):
        return all(type(item) in _PLAIN for item in value)
    from kprobes.model.mapspec import MapSpec
    from kprobes.model.setting import Setting

    return isinstance(value, (MapSpec, Setting, *_PLAIN))


def code_stamp() -> str:
    """Return a text that changes with the code of kprobes: its version and its newest file."""
    root = _ROOT
    newest = 0
    for part in CODE:
        with os.scandir(f"{root}/{part}") as entries:
            newest = max(newest, max(entry.stat().st_mtime_ns for entry in entries if entry.name.endswith(".py")))
    return f"{VERSION} {newest}"
