"""A histogram of an expression.

examples:
  kprobes hist vfs_write count                      bytes asked to write, in powers of two
  kprobes hist vfs_read retval --by comm            what reads return, per program
  kprobes hist vfs_read count --linear 0:4096:256   linear buckets: low:high:step
  kprobes hist --vm t:block:block_rq_issue bytes --duration 5
  kprobes hist 'p:w vfs_write size=%dx' size --filter 'size > 100'   of a definition: what it fetches
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kprobes.cli.definitions import add_definition_options, check_filter, is_definition, sampled, string_room
from kprobes.cli.options import add_output_options, add_run_options, add_target_options
from kprobes.cli.places import SPELLINGS, probes_of
from kprobes.cli.sampling import follow_histogram
from kprobes.cli.trace import in_process
from kprobes.errors import UsageError
from kprobes.model.mapspec import Histogram, String
from kprobes.model.probe import AutoHandler

# As many buckets as a linear histogram has at most (`Histogram.buckets`).
MOST_STEPS = 1024

if TYPE_CHECKING:
    from kprobes.cli.parser import Namespace, Parser


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("probe", metavar="PROBE", help="what to probe, see below")
    parser.add_argument("expression", metavar="EXPR", help="the value to sort, an integer")
    parser.add_argument("--if", dest="condition", default="", metavar="EXPR", help="only hits for which EXPR holds")
    parser.add_argument("--by", default="", metavar="EXPR", help="a histogram per value of EXPR: comm, pid, cpu ...")
    parser.add_argument("--linear", type=linear, metavar="LOW:HIGH:STEP", help="equal buckets (default: powers of two)")
    parser.add_argument("--unit", default="", help="a word shown with the values")
    add_run_options(parser)
    add_target_options(parser)
    add_output_options(parser)
    add_definition_options(parser)
    parser.epilog = f"{SPELLINGS}\n{parser.epilog or ''}"


def run(arguments: Namespace) -> int:
    """Sample until told to end."""
    check_filter(arguments, [arguments.probe])
    values = Histogram(arguments.expression, by=key_type(arguments.by, arguments.probe), linear=arguments.linear)
    handler = AutoHandler("sample", arguments.condition, (arguments.expression,), by=arguments.by, values=values)
    texts = f"{arguments.expression} {arguments.condition} {arguments.by}"
    if is_definition(arguments.probe):
        probes = [sampled(arguments.probe, arguments.filter, handler)]
        return follow_histogram(arguments, probes, values, arguments.unit)
    returning = re.search(r"\bretval\b", texts) is not None
    probes = probes_of([arguments.probe], handler, user=in_process(arguments), returning=returning)
    return follow_histogram(arguments, probes, values, arguments.unit)


def key_type(by: str, probe: str) -> type | String | None:
    """Return the type of the key that the expression *by* gives: text for `comm` and strings, also those that *probe*
    fetches if it is a definition, else a number."""
    if not by:
        return None
    if is_definition(probe) and (room := string_room(probe, by)):
        return String(room)
    return str if re.search(r"\bcomm\b|\bstring\(", by) else int


def linear(text: str) -> tuple[int, int, int]:
    """Return (low, high, step).

    Raises:
        UsageError: it is not three integers that make a range of at most MOST_STEPS.
    """
    try:
        low, high, step = (int(part, 0) for part in text.split(":"))
    except ValueError:
        raise UsageError(f"{text!r} is no LOW:HIGH:STEP", hint="as in --linear 0:4096:256") from None
    if not (low < high and step > 0 and (high - low) // step <= MOST_STEPS):
        raise UsageError(f"{text!r} is no range of 1 to {MOST_STEPS:,} steps", hint="as in --linear 0:4096:256")
    return low, high, step
