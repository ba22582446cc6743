"""Options that commands share: the target, the output, how long."""

from __future__ import annotations

import os

from kprobes.cli.parser import Namespace, Parser
from kprobes.engines.targets import Kernel, Machine
from kprobes.errors import UsageError
from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.targets import Known, Target
    from kprobes.model.probe import AutoHandler, FetchHandler, HandlerSource, Probe

ANY_KERNEL = "default"
KERNEL_WORDS = ("cgroup", "task")
USER_KINDS = frozenset({"uprobe", "uretprobe"})


def make_parser(name: str, summary: str, text: str) -> Parser:
    """Return the parser of the command *name*; *text* is its module's docstring: what it does, then examples."""
    body = text.strip().partition("\n")[2].strip("\n")
    return Parser(f"kprobes {name}", f"{summary[0].upper()}{summary[1:]}.", body)


def parse(parser: Parser, words: Sequence[str]) -> Namespace:
    """Parse *words*; what stands behind `--` goes to `command` untouched."""
    own, command = list(words), []
    if "--" in own:
        at = own.index("--")
        own, command = own[:at], own[at + 1 :]
        if not command:
            parser.error("no command behind --")
    # `--vm` takes its kernel with `=` only: the next word is a probe
    own = [f"--vm={ANY_KERNEL}" if word == "--vm" else word for word in own]
    arguments = parser.parse_args(own)
    if command and not hasattr(arguments, "vm"):
        parser.error("this command runs no other command")
    arguments.command = command
    if getattr(arguments, "arch", None) and hasattr(arguments, "copy"):
        _name_by_arch(arguments)
    return arguments


def _name_by_arch(arguments: Namespace) -> None:
    """Let the name of the guest's kernel tell its architecture; --arch alone means the default kernel of it."""
    from kprobes.engines.vm.arches import kernel_name
    from kprobes.engines.vm.kernels import DEFAULT_KERNEL

    if arguments.vm in (None, ANY_KERNEL) and not arguments.kernel:
        arguments.vm = DEFAULT_KERNEL
    for option in ("vm", "kernel"):
        kernel = getattr(arguments, option)
        if kernel not in (None, ANY_KERNEL):
            setattr(arguments, option, kernel_name(kernel, arguments.arch))


def add_target_options(parser: Parser) -> None:
    """Add `-p`, `--vm`, `--kernel`, `--arch`, `--copy`; `-- CMD` is understood by `parse`."""
    group = parser.add_argument_group("target", "default: this machine's kernel; `-- CMD ARGS` runs CMD meanwhile")
    group.add_argument("-p", "--pid", type=pid_number, metavar="PID", help="a running process")
    group.add_argument("--vm", metavar="KERNEL", help="a kernel in a box: --vm, or --vm=6.1, --vm=PATH of a bzImage")
    group.add_argument(
        "--engine",
        choices=("auto", "process", "uprobe", "tracefs"),
        default="auto",
        help="for processes: our own engine (nanoseconds a hit, needs ptrace) or the kernel's uprobes; "
        "tracefs: the kernel's own probe events, without BPF",
    )
    group.add_argument(
        "--exact-faults",
        action="store_true",
        help="let signal handlers of the process see the true address of a probed instruction that faults",
    )
    group.add_argument("--kernel", metavar="KERNEL", help="the same as --vm=KERNEL")
    group.add_argument("--arch", metavar="ARCH", help="architecture of the kernel in a box: x86_64 (default), arm64")
    group.add_argument(
        "--copy", action="append", default=[], metavar="FILE", help="copy FILE into the guest's / before CMD runs there"
    )


def add_output_options(parser: Parser, *, ftrace: bool = False) -> None:
    """Add `--format`, `-o`; *ftrace*: the lines may be the kernel's own."""
    group = parser.add_argument_group("output")
    choices, text = ["table", "json"], "json: one object per line"
    if ftrace:
        choices.append("ftrace")
        text += "; ftrace: the lines of the kernel's own trace file"
    group.add_argument("--format", choices=choices, default="table", help=text)
    group.add_argument("-o", "--output", metavar="FILE", help="write there instead of standard output")


def add_run_options(parser: Parser, *, count: bool = False) -> None:
    """Add `--duration`, `--strict`, and `-n` where *count*."""
    group = parser.add_argument_group("how long")
    if count:
        group.add_argument("-n", "--number", type=positive, metavar="N", help="end after N events")
    group.add_argument("--duration", type=_seconds, metavar="S", help="end after S seconds (default: Ctrl-C)")
    group.add_argument(
        "--strict", action="store_true", help="exit with 1 if a hit was missed, lost or faulty, or an assert failed"
    )


def target_of(arguments: Namespace) -> Known:
    """Return the target that the options name.

    Raises:
        UsageError: options contradict each other.
    """
    kernel = arguments.kernel or arguments.vm
    if arguments.kernel and arguments.vm and arguments.vm != ANY_KERNEL:
        raise UsageError("--vm=KERNEL and --kernel name two kernels", hint="give one of them")
    if kernel and arguments.pid is not None:
        raise UsageError("-p names a process of this machine, --vm a guest", hint="give one of them")
    if arguments.copy and not kernel:
        raise UsageError("--copy is for a guest", hint="add --vm")
    if kernel:
        from kprobes.cli.boot import show_progress

        return Machine("" if kernel == ANY_KERNEL else kernel, progress=show_progress)
    return Kernel()


def probes_natively(arguments: Namespace, probes: Sequence[Probe]) -> bool:
    """Return whether the process engine carries *probes* out, not the kernel's uprobes.

    Raises:
        UsageError: --engine asks for what the target can't be probed with.
    """
    in_process = not (arguments.vm or arguments.kernel) and (arguments.pid is not None or bool(arguments.command))
    user = all(probe.kind in USER_KINDS for probe in probes)
    if arguments.engine == "process" and not (in_process and user):
        raise UsageError("--engine process probes a process", hint="add -p PID or -- CMD, and name its functions")
    if arguments.engine != "auto":
        return bool(arguments.engine == "process")
    if os.uname().machine != "x86_64":  # where the process engine's code doesn't run
        return False
    return in_process and user and not any(_needs_kernel(probe.handler) for probe in probes)


def _needs_kernel(handler: HandlerSource | AutoHandler | FetchHandler | None) -> bool:
    """Return whether a handler asks for what only the kernel knows."""
    text = getattr(handler, "text", "")
    return any(f"{word}(" in text for word in KERNEL_WORDS)


def process_of(arguments: Namespace) -> Target:
    """Return the process that the options name, for the process engine."""
    from kprobes.engines.targets import process

    if arguments.pid is not None and arguments.command:
        raise UsageError("-p names a running process, -- starts one", hint="give one of them")
    return process(arguments.pid or 0, arguments.command, exact_faults=arguments.exact_faults)


def _refused(message: str) -> Exception:
    """Return the exception that argparse wants of a converter."""
    from argparse import ArgumentTypeError  # only for those who mistype

    return ArgumentTypeError(message)


def pid_number(text: str) -> int:
    """Return *text* as a process id, for argparse."""
    return _bounded(text, 1, 1 << 22, "a process id")


def positive(text: str) -> int:
    """Return the number from 1 that *text* is."""
    return _bounded(text, 1, 1 << 62, "a number from 1")


def _bounded(text: str, low: int, high: int, what: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise _refused(f"{text!r} is not {what}") from None
    if not low <= value <= high:
        raise _refused(f"{text} is not {what}")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        raise _refused(f"{text!r} is no number of seconds") from None
    if not 0 < value < 1e9:
        raise _refused(f"{text} is no number of seconds above 0")
    return value


@dataclass(frozen=True, slots=True)
class Limits:
    """When to end: after *duration* seconds or *number* events, whichever comes first; None is never."""

    duration: float | None
    number: int | None


def limits_of(arguments: Namespace) -> Limits:
    """Return when the command is to end."""
    return Limits(arguments.duration, getattr(arguments, "number", None))
