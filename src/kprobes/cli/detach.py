"""Take away what a controller that was killed left in a process.

examples:
  kprobes detach 1234
A process whose controller lives is refused: end that one instead, and it cleans up by itself.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kprobes.cli.options import pid_number

if TYPE_CHECKING:
    from kprobes.cli.parser import Namespace, Parser


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("pid", type=pid_number, metavar="PID", help="the process to clean")


def run(arguments: Namespace) -> int:
    """Clean the process."""
    from kprobes.engines.process.engine import detach_process

    restored = detach_process(arguments.pid)
    if restored:
        sys.stdout.write(f"process {arguments.pid}: {restored} places restored\n")
    else:
        sys.stdout.write(f"process {arguments.pid}: nothing of ours is there\n")
    return 0
