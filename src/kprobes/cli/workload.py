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


# What a forked command says first: its exec will stop it, or it waits to be told to exec.
_STOPS, _WAITS = b"s", b"w"
_SIGKILL = 9


def start_workload(engine: Engine, arguments: Namespace, *, native: bool = False, only_files: bool = False) -> Workload:
    """Return the workload that the options ask for, not yet running.

    *only_files*: all probes are of files, so what the command's process does before its exec is no concern of them.

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
        return Child(arguments.command, at_exec=only_files)
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
    """A command of this machine. It is forked at once and held, so that probes can name its pid first: before its exec,
    or with *at_exec* right after it, where that is permitted."""

    def __init__(self, command: Sequence[str], *, at_exec: bool = False) -> None:
        self._command = list(command)
        gate, self._gate = os.pipe()
        self._failure, failure = os.pipe()
        self.status = 0
        self.ended = False
        if at_exec:
            from kprobes.cli import exec_stop  # what the child needs of it is there when it is forked
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)
            os.close(self._failure)
            stops = at_exec and exec_stop.ask_to_be_stopped()
            os.write(failure, _STOPS if stops else _WAITS)
            _become(-1 if stops else gate, failure, self._command)
        os.close(gate)
        os.close(failure)
        from shutil import which  # only here: shutil loads every compressor that there is

        self.within = Within(self.pid, which(self._command[0]) or self._command[0])
        self._stopped = os.read(self._failure, 1) == _STOPS
        if self._stopped:
            self._run_to_exec()

    def release(self) -> None:
        """Let the command begin.

        Raises:
            TargetError: it can't be run.
        """
        if self._stopped:
            from kprobes.cli.exec_stop import let_go

            let_go(self.pid)
            self._stopped = False
        else:
            os.write(self._gate, b"x")
            self._check_start()
        os.close(self._gate)
        self._gate = -1

    def _run_to_exec(self) -> None:
        from kprobes.cli.exec_stop import run_to_exec

        if run_to_exec(self.pid) is not None:
            self.ended = True
            try:
                self._check_start()
            finally:
                os.close(self._failure)
                os.close(self._gate)
            raise TargetError(f"{self._command[0]!r} ended before it began")

    def _check_start(self) -> None:
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
        if self._stopped:
            os.kill(self.pid, _SIGKILL)
        if not self.ended:
            self._reap(0)

    def _reap(self, options: int) -> None:
        reaped, status = os.waitpid(self.pid, options)
        if reaped:
            self.ended = True
            code = os.waitstatus_to_exitcode(status)
            self.status = code if code >= 0 else 128 - code


def _become(gate: int, failure: int, command: list[str]) -> None:
    """In the child: wait for the gate, if there is one, then become *command*; tell errno through *failure*, which
    exec closes."""
    try:
        if gate < 0 or os.read(gate, 1):
            os.execvp(command[0], command)  # noqa: S606 - the user asked for this very program
    except OSError as error:
        os.write(failure, (error.errno or 1).to_bytes(4, "little"))
    finally:
        os._exit(127)


def _exists(pid: int) -> bool:
    return os.access(f"/proc/{pid}/stat", os.F_OK)
