"""What arming a probe at a place does, step by step, on the real bytes.

Nothing is armed unless --step asks for it.

examples:
  kprobes explain --vm vfs_read                    a function's entry in a kernel
  kprobes explain --vm=6.1 vfs_read+0x1b           an instruction inside
  kprobes explain -p PID libc:malloc               in a process, as the process engine does it
  kprobes explain --step libc:malloc+0x8 -- ls     and once in earnest: the registers before and behind it
  kprobes explain --vm 'p:mine vfs_read+9 %ax'     the place of a definition
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from kprobes.cli.definitions import is_definition
from kprobes.cli.options import add_target_options, target_of
from kprobes.errors import UsageError

if TYPE_CHECKING:
    from typing import TextIO

    from kprobes.cli.parser import Namespace, Parser
    from kprobes.model.explained import Explained

_TITLE, _OUTCOME = 13, 9


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("place", metavar="SITE", help="a kernel function or function+0x10, or a place in a process")
    parser.add_argument("--step", action="store_true", help="arm it in the process, and show the registers of one hit")
    parser.add_argument(
        "--format", choices=("table", "json"), default="table", help="json: one object, and one of the hit"
    )
    add_target_options(parser)


def run(arguments: Namespace) -> int:
    """Explain one place."""
    if is_definition(arguments.place):
        arguments.place = arguments.place.split()[1].removesuffix("%return")
    in_process = arguments.pid is not None or bool(arguments.command and not (arguments.vm or arguments.kernel))
    if arguments.step and not in_process:
        raise UsageError("--step carries a probe out in a process", hint="add -p PID or -- CMD")
    if not in_process and arguments.command:
        raise UsageError("explaining a place of a kernel runs no command", hint="leave `-- CMD` out")
    if not in_process:
        _show(_in_kernel(arguments), sys.stdout, arguments.format)
        return 0
    from kprobes.cli.explain_process import explain_in_process

    # a program that is started keeps standard output for itself
    stream = sys.stderr if arguments.command else sys.stdout
    return explain_in_process(arguments, stream, lambda found: _show(found, stream, arguments.format))


def _in_kernel(arguments: Namespace) -> Explained:
    from kprobes.planner.explaining import explain_kernel

    engine = target_of(arguments).open()
    try:
        return explain_kernel(arguments.place, engine.facts())
    finally:
        engine.close()


def _show(found: Explained, stream: TextIO, form: str) -> None:
    if form == "json":
        steps = [{name: getattr(step, name) for name in step.__slots__} for step in found.steps]
        row = {"place": found.place, "address": hex(found.address), "way": found.way, "error": found.error}
        stream.write(f"{json.dumps({**row, 'steps': steps})}\n")
    else:
        stream.write(_page(found))
    stream.flush()


def _page(found: Explained) -> str:
    from kprobes.render.escape import escape

    verdict = f"armed: {found.way}" if found.way else f"refused: {found.error}"
    lines = [f"{found.place} at {found.address:#x}: {verdict}", ""]
    for number, step in enumerate(found.steps, 1):
        lines.append(f"{number:>2}  {step.title:<{_TITLE}}{step.outcome:<{_OUTCOME}}{step.reason}".rstrip())
        lines += [f"{'':<{4 + _TITLE + _OUTCOME}}{line}" for line in step.lines]
    return "".join(f"{escape(line)}\n" for line in lines)
