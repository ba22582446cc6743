"""What can be probed.

examples:
  kprobes list 'vfs_*'              functions of this machine's kernel
  kprobes list --vm 'tcp_*'         of a kernel in a box
  kprobes list 'ext4:*'             of a module
  kprobes list 't:sched:*'          tracepoints
Functions that can't be probed are left out; the last line says how many, and why.
"""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from kprobes.cli.options import add_target_options, target_of
from kprobes.errors import SymbolNotFoundError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.cli.parser import Namespace, Parser
    from kprobes.engines.port import Facts

TRACEPOINT = ("t:", "tracepoint:")


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("glob", nargs="?", default="*", metavar="GLOB", help="a function or a glob (default: all)")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="json: one object per line")
    add_target_options(parser)


def run(arguments: Namespace) -> int:
    """List what matches."""
    engine = target_of(arguments).open()
    try:
        facts = engine.facts()
        glob: str = arguments.glob
        rows = _tracepoints(glob.partition(":")[2], facts) if glob.startswith(TRACEPOINT) else _functions(glob, facts)
        for row in rows:
            sys.stdout.write(f"{json.dumps(row) if arguments.format == 'json' else _line(row)}\n")
    finally:
        engine.close()
    return 0


def _functions(glob: str, facts: Facts) -> Iterator[dict[str, object]]:
    from kprobes.symbols.kernel import KernelSymbols

    resolution = KernelSymbols(facts).resolve(glob, traceable=True)
    for one in resolution.found:
        yield {"name": one.site.name, "module": one.site.module, "traceable": one.traceable}
    for note in resolution.notes(glob):
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
    module = f" [{row['module']}]" if row.get("module") else ""
    return f"{row['name']}{module}"
