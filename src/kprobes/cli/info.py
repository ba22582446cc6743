"""Prototype of a function, and whether and how it can be probed.

examples:
  kprobes info vfs_read
  kprobes info --vm=6.1 tcp_v4_connect
  kprobes info --format json do_exit
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from kprobes.cli.options import add_target_options, target_of
from kprobes.errors import TypeNotFoundError

if TYPE_CHECKING:
    from kprobes.cli.parser import Namespace, Parser
    from kprobes.engines.port import Facts
    from kprobes.model.features import Features
    from kprobes.symbols.btf_types import KernelTypes
    from kprobes.symbols.explain import Explanation


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("function", metavar="FUNC", help="a kernel function, or module:function")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="json: one object")
    add_target_options(parser)


def run(arguments: Namespace) -> int:
    """Explain one function."""
    engine = target_of(arguments).open()
    try:
        facts = engine.facts()
        known = _explain(arguments.function, facts)
        ways = [] if known.refusal else _ways(known, facts.features)
    finally:
        engine.close()
    if arguments.format == "json":
        row = {name: getattr(known, name) for name in known.__slots__}
        sys.stdout.write(f"{json.dumps({**row, 'ways': ways})}\n")
    else:
        sys.stdout.write(_page(known, ways))
    return 0


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
        ("prototype", known.prototype or "not known (no BTF for it): use arg(1), regs.di, retval"),
        ("address", f"{known.address:#x}, {known.size} bytes" if known.address else "hidden (needs CAP_SYSLOG)"),
        ("can be probed", f"no: {known.refusal}" if known.refusal else "yes" if ways else "not on this kernel"),
        ("ways in", ", ".join(ways)),
        ("ftrace", {True: "reaches it", False: "does not reach it (notrace)", None: ""}[known.traceable]),
        ("copies", ", ".join(known.copies)),
        ("steadier", ", ".join(f"t:{name}" for name in known.tracepoints)),
    ]
    from kprobes.render.escape import escape

    return "".join(f"{label:<14} {escape(text)}\n" for label, text in rows if text)
