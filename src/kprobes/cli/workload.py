"""What runs while the probes are in place: the user's command here, the user's command in the guest, or nothing of
ours."""

from __future__ import annotations

import os

from kprobes.errors import TargetError, UsageError
from kprobes.model.within import Within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Protocol, Self

    from kprobes.cli.parser import Namespace
    from kprobes.engines.port import Engine
    from kprobes.engines.process.engine import ProcessEngine
    from kprobes.engines.vm.machine import Machine

    class Workload(Protocol):
        """A context manager; leaving it waits for the command."""

        @property
        def within(self) -> Within:
            """The process that probes of files are limited to."""

        @property
        def status(self) -> int:
            """The command's exit status, 0 where there is none."""

        def release(self) -> None:
            """Let the command begin."""

        def poll(self) -> bool:
            """Return whether it has ended."""

        def interrupt(self) -> None:
            """The user wants an end."""

        def __enter__(self) -> Self: ...

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None: ...


def start_workload(engine: Engine, arguments: Namespace, *, native: bool = False) -> Workload:
    """Return the workload that the options ask for, not yet running.

    Raises:
        UsageError: `-p` and `-- CMD` at once.
    """
    if arguments.command and arguments.pid is not None:
        raise UsageError("-p names a running process, -- starts one", hint="give one of them")
    if native:
        from typing import cast

        from kprobes.cli.native_workload import NativeWorkload

        return NativeWorkload(cast("ProcessEngine", engine), arguments.command)
    if arguments.vm or arguments.kernel:
        from typing import cast

        from kprobes.cli.guest_workload import GuestWorkload

        return GuestWorkload(cast("Machine", engine), arguments.command, arguments.copy)
    if arguments.command:
        return Child(arguments.command)
    return Nothing(-1 if arguments.pid is None else arguments.pid)


class Nothing:
    """No command; with *pid*, the end of that process is the end of the run."""

    status = 0

    def __init__(self, pid: int) -> None:
        self.within = Within(pid)
        if pid > 0 and not _exists(pid):
            raise TargetError(f"no process {pid}", hint="`ps -e` lists the processes")

    def poll(self) -> bool:
        """Return whether the process is gone."""
        return self.within.pid > 0 and not _exists(self.within.pid)

    def release(self) -> None:
        """Nothing waits."""

    def interrupt(self) -> None:
        """Nothing runs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Child:
    """A command of this machine. It is forked at once and held before its exec, so that probes can name its pid
    first."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        gate, self._gate = os.pipe()
        self._failure, failure = os.pipe()
        self.status = 0
        self.ended = False
        self.pid = os.fork()
        from shutil import which  # only here: shutil loads every compressor that there is

        self.within = Within(self.pid, which(self._command[0]) or self._command[0])
        if self.pid == 0:
            os.close(self._gate)
            os.close(self._failure)
            _exec_when_released(gate, failure, self._command)
        os.close(gate)
        os.close(failure)

    def release(self) -> None:
        """Let the command begin.

        Raises:
            TargetError: it can't be run.
        """
        os.write(self._gate, b"x")
        os.close(self._gate)
        self._gate = -1
        number = os.read(self._failure, 4)
        if number:
            reason = os.strerror(int.from_bytes(number, "little"))
            raise TargetError(f"can't run {self._command[0]!r}: {reason}", hint="is it installed, and executable?")

    def poll(self) -> bool:
        """Return whether the command has ended, and note its status."""
        if not self.ended:
            self._reap(os.WNOHANG)
        return self.ended

    def interrupt(self) -> None:
        """Pass the wish on; a terminal has sent its own SIGINT to the whole group already."""
        if not self.poll() and os.getpgrp() != os.getpgid(self.pid):
            from signal import SIGINT

            os.kill(self.pid, SIGINT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._failure)
        if self._gate >= 0:  # never released: the closed gate tells it to go
            os.close(self._gate)
        if not self.ended:
            self._reap(0)

    def _reap(self, options: int) -> None:
        reaped, status = os.waitpid(self.pid, options)
        if reaped:
            self.ended = True
            code = os.waitstatus_to_exitcode(status)
            self.status = code if code >= 0 else 128 - code


def _exec_when_released(gate: int, failure: int, command: list[str]) -> None:
    """In the child: wait for the gate, then become *command*; tell errno through *failure*, which exec closes."""
    try:
        if os.read(gate, 1):
            os.close(gate)
            os.execvp(command[0], command)  # noqa: S606 - the user asked for this very program
    except OSError as error:
        os.write(failure, (error.errno or 1).to_bytes(4, "little"))
    finally:
        os._exit(127)


def _exists(pid: int) -> bool:
    return os.access(f"/proc/{pid}/stat", os.F_OK)
