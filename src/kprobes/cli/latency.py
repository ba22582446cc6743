"""A histogram of the time a function takes.

examples:
  kprobes latency vfs_read                     microseconds, powers of two
  kprobes latency --vm vfs_write --by comm     per program, in a kernel in a box
  kprobes latency do_sys_openat2 --unit ns --duration 5
  kprobes latency r:tcp_v4_connect --if 'retval == 0'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.cli.hist import key_type
from kprobes.cli.options import add_output_options, add_run_options, add_target_options
from kprobes.cli.places import probes_of
from kprobes.cli.sampling import follow_histogram
from kprobes.cli.trace import in_process
from kprobes.model.mapspec import Histogram
from kprobes.model.probe import AutoHandler

if TYPE_CHECKING:
    from kprobes.cli.parser import Namespace, Parser

DIVISORS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("function", metavar="FUNC", help="a function, or a glob of them")
    parser.add_argument("--by", default="", metavar="EXPR", help="a histogram per value of EXPR: comm, pid, cpu ...")
    parser.add_argument("--if", dest="condition", default="", metavar="EXPR", help="only calls for which EXPR holds")
    parser.add_argument("--unit", choices=DIVISORS, default="us", help="of the time (default: us)")
    add_run_options(parser)
    add_target_options(parser)
    add_output_options(parser)


def run(arguments: Namespace) -> int:
    """Time calls until told to end."""
    values = Histogram(arguments.function, by=key_type(arguments.by))
    handler = AutoHandler(
        "latency", arguments.condition, by=arguments.by, divisor=DIVISORS[arguments.unit], values=values
    )
    probes = probes_of([arguments.function], handler, user=in_process(arguments), returning=True)
    return follow_histogram(arguments, probes, values, arguments.unit)
