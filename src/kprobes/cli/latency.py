"""A histogram of the time a function takes.

examples:
  kprobes latency vfs_read                     microseconds, powers of two
  kprobes latency --vm vfs_write --by comm     per program, in a kernel in a box
  kprobes latency do_sys_openat2 --unit ns --duration 5
  kprobes latency r:tcp_v4_connect --if 'retval == 0'
  kprobes latency 'r:back vfs_read got=$retval:s64' --filter 'got > 0' --by 'got // 4096'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.cli.definitions import add_definition_options, check_filter, event_name, is_definition, sampled
from kprobes.cli.hist import key_type
from kprobes.cli.options import add_output_options, add_run_options, add_target_options
from kprobes.cli.places import probes_of
from kprobes.cli.sampling import follow_histogram
from kprobes.cli.trace import in_process
from kprobes.decorators import definition
from kprobes.model.mapspec import Histogram
from kprobes.model.probe import AutoHandler

if TYPE_CHECKING:
    from kprobes.cli.parser import Namespace, Parser

DIVISORS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("function", metavar="FUNC", help="a function, a glob of them, or the definition of its return")
    parser.add_argument("--by", default="", metavar="EXPR", help="a histogram per value of EXPR: comm, pid, cpu ...")
    parser.add_argument("--if", dest="condition", default="", metavar="EXPR", help="only calls for which EXPR holds")
    parser.add_argument("--unit", choices=DIVISORS, default="us", help="of the time (default: us)")
    add_run_options(parser)
    add_target_options(parser)
    add_output_options(parser)
    add_definition_options(parser)


def run(arguments: Namespace) -> int:
    """Time calls until told to end."""
    check_filter(arguments, [arguments.function])
    name = arguments.function
    if is_definition(name):
        name = event_name(definition(name)) or name.split()[1]
    values = Histogram(name, by=key_type(arguments.by, arguments.function))
    handler = AutoHandler(
        "latency", arguments.condition, by=arguments.by, divisor=DIVISORS[arguments.unit], values=values
    )
    if is_definition(arguments.function):
        probes = [sampled(arguments.function, arguments.filter, handler)]
        return follow_histogram(arguments, probes, values, arguments.unit)
    probes = probes_of([arguments.function], handler, user=in_process(arguments), returning=True)
    return follow_histogram(arguments, probes, values, arguments.unit)
