"""Probes that leave kprobes: as a kernel module in C, or as a compiled bundle that runs where there is no compiler.

examples:
  kprobes export module 'p:opened do_sys_openat2 dfd=%di filename=+0(%si):string' -o opened
  kprobes export module examples/vfslatency.py -o latency
  kprobes export module --vm=6.12 --build examples/vfslatency.py -o latency     built for a kernel in a box
  kprobes export bundle examples/vfslatency.py --for 6.12 --for 6.1 -o latency.kpb
  kprobes run latency.kpb --vm=6.1
  kprobes export bundle examples/gethostlatency.py -o hosts.kpb -- getent hosts localhost
  kprobes run hosts.kpb -- getent hosts example.org
A module is readable C with a Makefile and a README: `make -C latency`, insmod, dmesg, rmmod. It is made of definitions
in the kernel's own language, and of scripts, whose handlers are translated to C; what can't be is refused.
A bundle holds the compiled handlers of a script (or of probes) for the kernels named by --for, or for the files of a
process, and the script, which runs as Python where the bundle does: run only bundles that you trust.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kprobes.cli.options import ANY_KERNEL, pid_number
from kprobes.errors import UsageError

if TYPE_CHECKING:
    from kprobes.cli.parser import Namespace, Parser

HEADER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*\.h")
_OPTIONS = {
    "module": (("--name", "name"), ("--stack", "stack"), ("--include", "include"), ("--build", "build")),
    "bundle": (("--for", "targets"),),
}
DEFINITION = re.compile(r"[pr][0-9]*(:\S+)?\s+\S")


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("what", choices=("module", "bundle"), metavar="module|bundle", help="what is to be written")
    parser.add_argument("items", nargs="+", metavar="SCRIPT|DEFINITION", help="a probe script, or a definition")
    parser.add_argument("-o", "--output", metavar="PATH", help="where it is written: a directory, or the bundle's file")
    parser.add_argument("--vm", metavar="KERNEL", help="for a kernel in a box: its types, and with --build its headers")
    parser.add_argument("--kernel", metavar="KERNEL", help="the same as --vm=KERNEL")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="give a setting of the script another default"
    )
    group = parser.add_argument_group("module")
    group.add_argument("--name", metavar="NAME", help="what the module is called (default: as DIR)")
    group.add_argument("--stack", action="store_true", help="definitions show the kernel's stack at each hit")
    group.add_argument(
        "--include", action="append", default=[], metavar="HEADER", help="include it, too: linux/blk-mq.h"
    )
    group.add_argument("--build", action="store_true", help="build it at once")
    group = parser.add_argument_group("bundle", "default: for this machine's kernel")
    group.add_argument(
        "--for", dest="targets", action="append", default=[], metavar="KERNEL",
        help="for a kernel in a box, or `here`: this machine's; may be given several times",
    )  # fmt: skip
    group.add_argument("-p", "--pid", type=pid_number, metavar="PID", help="for the files of a running process")


def run(arguments: Namespace) -> int:
    """Write what was asked for."""
    if not arguments.output:
        raise UsageError("-o says where it is written", hint=f"kprobes export {arguments.what} ... -o NAME")
    _refuse_options(arguments)
    if arguments.what == "bundle":
        from kprobes.cli.export_bundle import export_bundle

        return export_bundle(arguments)
    if arguments.command or arguments.pid is not None:
        raise UsageError("a module probes the kernel", hint="leave -p and -- out")
    from kprobes.cli.export_module import export_module

    return export_module(arguments)


def _refuse_options(arguments: Namespace) -> None:
    """Refuse options that would be ignored, and headers that are none."""
    other = "bundle" if arguments.what == "module" else "module"
    for option, value in _OPTIONS[other]:
        if getattr(arguments, value):
            raise UsageError(f"{option} is for `kprobes export {other}`", hint="leave it out")
    if arguments.targets and (arguments.vm or arguments.kernel):
        raise UsageError("--for names the kernels, --vm another one", hint="give --for once for each kernel")
    if arguments.kernel and arguments.vm and arguments.vm != ANY_KERNEL:
        raise UsageError("--vm=KERNEL and --kernel name two kernels", hint="give one of them")
    if arguments.set and all(map(is_definition, arguments.items)):
        raise UsageError("--set is for scripts: definitions have no settings", hint="leave it out")
    for header in arguments.include:
        if HEADER.fullmatch(header) is None or ".." in header:
            raise UsageError(f"{header!r} is no header of the kernel", hint="write it as C does: linux/blk-mq.h")


def is_definition(item: str) -> bool:
    """Return whether *item* is a definition in the kernel's language, not the name of a script."""
    return DEFINITION.match(item) is not None
