"""Take away what a controller that was killed left: in a process, or without PID in the kernel's tracefs.

examples:
  kprobes detach 1234
  kprobes detach
What belongs to a controller that lives stays: end that one instead, and it cleans up by itself.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kprobes.cli.options import pid_number

if TYPE_CHECKING:
    from kprobes.cli.parser import Namespace, Parser


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("pid", nargs="?", type=pid_number, metavar="PID", help="the process to clean")


def run(arguments: Namespace) -> int:
    """Clean the process, or the kernel's tracefs."""
    if arguments.pid is None:
        return _clean_tracefs()
    from kprobes.engines.process.engine import detach_process

    restored = detach_process(arguments.pid)
    if restored:
        sys.stdout.write(f"process {arguments.pid}: {restored} places restored\n")
    else:
        sys.stdout.write(f"process {arguments.pid}: nothing of ours is there\n")
    return 0


def _clean_tracefs() -> int:
    from kprobes.engines.kernel.files import KernelFiles
    from kprobes.engines.kernel.trace_instance import remove_all_leftovers
    from kprobes.errors import UnsupportedError

    files = KernelFiles()
    try:
        root = files.root("tracefs")
        if not files.writable("tracefs", "dynamic_events"):
            raise UnsupportedError(
                "tracefs can't be written", hint="run as root, or name the PID of a process to clean"
            )
        removed = remove_all_leftovers(root)
    finally:
        files.close()
    for name in removed:
        sys.stdout.write(f"event {name} removed\n")
    if not removed:
        sys.stdout.write("tracefs: nothing of ours is there\n")
    return 0
