"""One QEMU process: its start, its sockets, its end."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

from kprobes.engines.vm.arches import ARCHES
from kprobes.engines.vm.console import Console
from kprobes.errors import TargetError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

PR_SET_PDEATHSIG = 1


class Qemu:
    """A running QEMU; `close` ends it.

    Its channel ports are sockets that listen before it starts: whoever connects early waits. The process dies with ours
    (unless it is *kept*), also when ours is killed.
    """

    def __init__(self, command: list[str], listeners: Sequence[socket.socket], *, kept: bool = False) -> None:
        self.console = Console()
        self._spawned = Event()
        self._ended = Event()
        self._failure: OSError | None = None
        self._status = 0
        self.pid = 0
        descriptors = tuple(listener.fileno() for listener in listeners)
        # The thread that spawns stays until QEMU has ended: the kernel ties "dies with its parent" to it.
        self._keeper = Thread(target=self._keep, args=(command, descriptors, kept), daemon=True)
        self._keeper.start()
        self._spawned.wait()
        if self._failure is not None:
            raise _not_started(command[0], self._failure)

    @property
    def ended(self) -> bool:
        """Return whether QEMU is gone."""
        return self._ended.is_set()

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until QEMU has ended and its console is read; return whether it has."""
        return self._ended.wait(timeout_s)

    def death(self, during: str) -> TargetError:
        """Return the error that tells of QEMU's end *during* something, with the last lines of the console."""
        what = f"the guest died {during}"
        if self._status:
            what += f" (QEMU exit status {self._status})"
        return TargetError(f"{what}; the last lines of its console:\n{self.console.tail()}")

    def close(self) -> None:
        """End the process; idempotent."""
        if not self.ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._ended.wait(10)

    def _keep(self, command: list[str], descriptors: tuple[int, ...], kept: bool) -> None:
        import subprocess

        before = None if kept else _die_with_parent()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                start_new_session=True,
                preexec_fn=before,
            )
        except OSError as error:
            self._failure = error
            self._spawned.set()
            return
        self.pid = process.pid
        self._spawned.set()
        assert process.stdout is not None
        self.console.read(process.stdout.fileno())
        process.stdout.close()
        self._status = process.wait()
        self._ended.set()


def listen(path: Path) -> socket.socket:
    """Return a listening socket at *path*, for its owner alone.

    A path may be longer than a socket address can be, so it is bound through the directory's descriptor.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        path.chmod(0o600)
        listener.listen(4)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


def _die_with_parent() -> Callable[[], None]:
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) and None


def missing(program: str) -> UnsupportedError:
    """Return the error that QEMU's *program* is not there."""
    packages = {arch.program: arch.package for arch in ARCHES.values()}
    return UnsupportedError(f"there is no {program}", hint=f"apt-get install {packages[program]}")


def _not_started(program: str, error: OSError) -> UnsupportedError:
    if isinstance(error, FileNotFoundError):
        return missing(program)
    return UnsupportedError(f"{program} can't be started: {error.strerror}")
