"""Compiled plans on disk, by content: the same request for the same target finds its plan without LLVM, BTF or
kallsyms.

The key covers everything a plan depends on: the handlers' text and whatever they name, the places, the target's
stamp and
features, and the code of kprobes itself. A handler that names something whose text can't be told is compiled each time.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import astuple
from types import FunctionType
from typing import TYPE_CHECKING

import kprobes
from kprobes.errors import FormatError
from kprobes.model.mapspec import Count, HashMap, Histogram
from kprobes.model.probe import AutoHandler, HandlerSource, Probe
from kprobes.model.wire import plan_from_bytes, plan_to_bytes
from kprobes.symbols.cache import read_cached, write_cached

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kprobes.engines.port import Facts
    from kprobes.model.plan import Plan

_WORD = re.compile(r"[^\W\d]\w*")
_PLAIN = (int, str, bool, bytes, type(None))
_MAPS = (Count, Histogram, HashMap)


class _UncacheableError(Exception):
    """A handler names something that has no text of its own."""


def cached_plan(probes: Sequence[Probe], facts: Facts, avoid: frozenset[str] = frozenset(), *, pid: int = -1) -> Plan:
    """Return the plan for *probes*, from the disk where the same one was made before.

    Raises:
        KprobesError: as `plan_probes`.
    """
    name = _name(probes, facts, avoid, pid)
    if name:
        found = _load(name)
        if found is not None:
            return found
    from kprobes.planner.build import plan_probes

    plan = plan_probes(probes, facts, avoid=avoid, pid=pid)
    if name:
        write_cached(name, [plan_to_bytes(plan)])
    return plan


def _load(name: str) -> Plan | None:
    data = read_cached(name)
    if data is None:
        return None
    try:
        return plan_from_bytes(data)
    except FormatError:
        return None  # written by another version or cut short: it is made again


def _name(probes: Sequence[Probe], facts: Facts, avoid: frozenset[str], pid: int) -> str:
    digest = hashlib.blake2b(digest_size=20)
    try:
        for text in _ingredients(probes, facts, avoid, pid):
            digest.update(text.encode("utf-8", "surrogateescape") + b"\0")
    except _UncacheableError:
        return ""
    return f"plan-{digest.hexdigest()}"


def _ingredients(probes: Sequence[Probe], facts: Facts, avoid: frozenset[str], pid: int) -> Iterator[str]:
    yield code_stamp()
    yield facts.stamp()
    yield repr(astuple(facts.features))
    yield f"{sorted(avoid)} {pid}"
    for probe in probes:
        yield repr((probe.kind, probe.places, probe.maxactive, probe.way, probe.unsafe))
        yield from _handler(probe.handler)


def _handler(handler: HandlerSource | AutoHandler | None) -> Iterator[str]:
    if isinstance(handler, HandlerSource):
        yield from _source(handler, set())
    else:
        yield repr(handler)


def _source(source: HandlerSource, seen: set[str]) -> Iterator[str]:
    """Yield the text of a handler and of everything it names, each once."""
    yield f"{source.file}:{source.line}:{source.indent}\n{source.text}"
    for word in sorted(set(_WORD.findall(source.text)) & set(source.names)):
        if word in seen:
            continue
        seen.add(word)
        yield from _named(word, source.names[word], seen)


def _named(word: str, value: object, seen: set[str]) -> Iterator[str]:
    if _is_word(value):
        yield word
    elif _is_plain(value):
        yield f"{word}={type(value)!r} {value!r}"
    elif isinstance(value, FunctionType):
        from kprobes.compiler.front.source import source_of

        yield from _source(source_of(value), seen)
    else:
        raise _UncacheableError


def _is_word(value: object) -> bool:
    home = "kprobes.model.words"
    return getattr(value, "__module__", "") == home or type(value).__module__ == home


def _is_plain(value: object) -> bool:
    """Return whether the repr of *value* tells all of it: maps, constants, and sequences of them."""
    if isinstance(value, tuple | list):
        return all(type(item) in _PLAIN for item in value)
    return isinstance(value, (*_MAPS, *_PLAIN))


def code_stamp() -> str:
    """Return a text that changes with the code of kprobes: its version and its newest file."""
    root = kprobes.__path__[0]
    newest = 0
    for part in ("compiler/front", "compiler/back", "compiler/ir", "planner", "symbols", "model"):
        with os.scandir(f"{root}/{part}") as entries:
            newest = max(newest, max(entry.stat().st_mtime_ns for entry in entries if entry.name.endswith(".py")))
    return f"{kprobes.__version__} {newest}"
