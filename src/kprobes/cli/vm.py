"""The kernel in a box: boot one and keep it up.

examples:
  kprobes vm                          a shell in a guest with Debian's 6.12; other commands with --vm use this guest
  meanwhile
  kprobes vm --kernel 5.10 -- uname -a
  kprobes vm --keep &                 no shell: stays up until it is ended (Ctrl-C, kill)
  kprobes vm --copy ./prog -- ./prog
  kprobes vm --arch arm64 -- uname -m
Kernels by name: 5.10, 6.1, 6.12, 7.2, for arm64 6.1, 6.12, 7.2; or the path of a bzImage. The first start of a kernel
downloads and boots it; later ones resume from there in under a second.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from kprobes.cli.guest_workload import GuestWorkload
from kprobes.cli.options import ANY_KERNEL

if TYPE_CHECKING:
    from kprobes.cli.parser import Namespace, Parser
    from kprobes.engines.vm.machine import Machine

DETACH_HINT = "`exit` ends the guest; meanwhile `kprobes trace --vm{suffix} vfs_read` and the others use it"
POLL_S = 0.2


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("--kernel", metavar="KERNEL", help="5.10, 6.1, 6.12 (default), 7.2, or the path of a bzImage")
    parser.add_argument("--vm", metavar="KERNEL", help="the same as --kernel")
    parser.add_argument("--arch", metavar="ARCH", help="x86_64 (default) or arm64")
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="CPUs of the guest (default: 2)")
    parser.add_argument("--memory", type=int, default=512, metavar="MB", help="memory of the guest (default: 512)")
    parser.add_argument(
        "--copy", action="append", default=[], metavar="FILE", help="copy FILE into the guest (to /root)"
    )
    parser.add_argument("--keep", action="store_true", help="no shell: keep the guest up until this command is ended")


def run(arguments: Namespace) -> int:
    """Boot, and run what was asked."""
    from kprobes.cli.boot import show_progress
    from kprobes.engines.vm.kernels import DEFAULT_KERNEL
    from kprobes.engines.vm.machine import Machine
    from kprobes.engines.vm.terminal import interact

    named = arguments.kernel or (arguments.vm if arguments.vm != ANY_KERNEL else None)
    kernel = named or DEFAULT_KERNEL
    with Machine(kernel, cpus=arguments.cpus, memory_mb=arguments.memory, progress=show_progress) as machine:
        machine.wait_ready()
        if arguments.command:
            return _command(machine, arguments)
        machine.announce()
        suffix = "" if kernel == DEFAULT_KERNEL else f"={kernel}"
        if arguments.keep or not sys.stdin.isatty():
            return _keep(suffix)
        sys.stderr.write(f"a guest with {kernel} is up. {DETACH_HINT.format(suffix=suffix)}\n")
        return interact(machine, copy=arguments.copy)


def _command(machine: Machine, arguments: Namespace) -> int:
    with GuestWorkload(machine, arguments.command, arguments.copy) as workload:
        workload.release()
        try:
            while not workload.poll(POLL_S):
                pass
        except KeyboardInterrupt:
            workload.interrupt()
        return workload.status


def _keep(suffix: str) -> int:
    sys.stderr.write(f"the guest is up for `--vm{suffix}`; Ctrl-C or kill {os.getpid()} ends it\n")

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return 0
