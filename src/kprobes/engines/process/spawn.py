"""Starting a program so that its probes are in place before its first instruction.

The child waits until it is seized, then executes the program. The exec is reported before anything of it has run. At
the program's entry point, where the loader hands over with all needed objects mapped, stands a breakpoint for a moment;
there the thread stays stopped until the probes are in.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from typing import TYPE_CHECKING

from kprobes.engines.process import ptrace
from kprobes.engines.process.memory import ProcessMemory
from kprobes.engines.process.ptrace import TraceeGoneError
from kprobes.engines.process.target import check_architecture
from kprobes.errors import TargetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_AT_ENTRY = 9
_AT_NULL = 0
_INT3 = b"\xcc"
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


def spawn(argv: Sequence[str], environment: dict[str, str] | None) -> int:
    """Start *argv* and return its process id; it is ours, stopped in PTRACE_EVENT_STOP at its entry point.

    Raises:
        UsageError: there is no such program, or it can't be executed (exit code as a shell would have it).
        UnsupportedError: it isn't 64-bit x86 code.
        TargetError: it ended before it began.
    """
    failed_here, failed_there = os.pipe()
    ready_there, ready_here = os.pipe()
    pid = os.fork()
    if not pid:
        _become(argv, environment, ready_there, failed_there)
    os.close(failed_there)
    os.close(ready_there)
    try:
        ptrace.seize(pid, ptrace.OPTION_EXEC | ptrace.OPTION_SYSGOOD)
        os.write(ready_here, b"\n")
        _run_to_exec(pid, argv, failed_here)
        check_architecture(pid)
        _run_to_entry(pid)
    except BaseException:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(pid, 0)
        raise
    finally:
        os.close(ready_here)
        os.close(failed_here)
    return pid


def _become(argv: Sequence[str], environment: dict[str, str] | None, ready: int, failed: int) -> None:
    """Become the program, in the child. Signals that the hand ignores get their defaults back."""
    try:
        for number in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):
                if signal.getsignal(number) is not signal.SIG_DFL:
                    signal.signal(number, signal.SIG_DFL)
        os.read(ready, 1)
        os.execvpe(argv[0], list(argv), os.environ if environment is None else environment)  # noqa: S606
    except OSError as error:
        os.write(failed, struct.pack("<I", error.errno or 0))
    finally:
        os._exit(_NOT_FOUND)


def _run_to_exec(pid: int, argv: Sequence[str], failed: int) -> None:
    while True:
        status = ptrace.wait(pid)
        if status is None or ptrace.is_end(status):
            number = struct.unpack("<I", os.read(failed, 4).ljust(4, b"\0"))[0]
            reason = os.strerror(number) if number else "it ended at once"
            raise UsageError(f"{argv[0]} can't be started: {reason}")
        if ptrace.event(status) == ptrace.EVENT_EXEC:
            return
        ptrace.resume(pid, 0 if ptrace.event(status) else os.WSTOPSIG(status))


def entry_point(auxiliary: bytes) -> int:
    """Return the program's entry point from the bytes of /proc/PID/auxv; 0 if it isn't there."""
    for kind, value in struct.iter_unpack("<QQ", auxiliary[: len(auxiliary) & -16]):
        if kind == _AT_ENTRY:
            return int(value)
        if kind == _AT_NULL:
            break
    return 0


def _run_to_entry(pid: int) -> None:
    with open(f"/proc/{pid}/auxv", "rb") as file:  # noqa: PTH123
        entry = entry_point(file.read())
    with ProcessMemory(pid) as memory:
        original = memory.read(entry, 1)
        memory.write(entry, _INT3)
        try:
            ptrace.resume(pid)
            while True:
                status = ptrace.wait(pid)
                if status is None or ptrace.is_end(status):
                    raise TargetError("the program ended before its first instruction")
                at_event, stop = ptrace.event(status), os.WSTOPSIG(status)
                if not at_event and stop == signal.SIGTRAP and ptrace.registers(pid).ip == entry + 1:
                    break
                ptrace.resume(pid, 0 if at_event else stop)
        finally:
            with contextlib.suppress(TargetError):
                memory.write(entry, original)
    values = ptrace.registers(pid)
    values.ip = entry
    ptrace.set_registers(pid, values)
    _rest(pid)


def _rest(pid: int) -> None:
    """Bring a stopped thread into PTRACE_EVENT_STOP without letting it run."""
    ptrace.interrupt(pid)
    ptrace.resume(pid)
    while True:
        status = ptrace.wait(pid)
        if status is None or ptrace.is_end(status):
            raise TraceeGoneError(pid)
        if ptrace.event(status) == ptrace.EVENT_STOP:
            return
        ptrace.interrupt(pid)  # any other stop makes the kernel forget that it was asked for
        ptrace.resume(pid, 0 if ptrace.event(status) else os.WSTOPSIG(status))
