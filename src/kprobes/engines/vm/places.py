"""Where machines run: one private directory each, with a socket for each channel port.

vm-<pid>-<n>/lock           held while the machine's owner lives; a directory whose lock is free is a leftover
vm-<pid>-<n>/port0..7       the sockets, each with a lock file for the one client that uses it
vm-<pid>-<n>/machine.json   written when others may use the machine
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.engines.vm.cache import private_directory, run_directory, write_whole
from kprobes.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Announcement:
    """What others learn of a machine that they may use."""

    kernel: str
    release: str
    facts: str
    pid: int


class Place:
    """The directory of a machine of ours; `close` removes it."""

    def __init__(self) -> None:
        home = run_directory()
        sweep(home)
        number = 0
        while (home / f"vm-{os.getpid()}-{number}").exists():
            number += 1
        self.directory = private_directory(home / f"vm-{os.getpid()}-{number}")
        self._lock = _lock(self.directory / "lock")

    def announce(self, announcement: Announcement) -> None:
        """Let others use the machine."""
        write_whole(self.directory / "machine.json", json.dumps(asdict(announcement)).encode())

    def close(self) -> None:
        """Remove the directory; idempotent."""
        if self._lock is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
            os.close(self._lock)
            self._lock = None


class PortClaim:
    """One port of a machine, ours until `close`."""

    def __init__(self, directory: Path) -> None:
        self._lock: int | None = None
        ports = [path for path in directory.glob("port*") if path.suffix != ".lock"]
        # From anywhere on: a port that was just let go is best left alone for a moment.
        start = os.urandom(1)[0] % max(1, len(ports))
        for path in ports[start:] + ports[:start]:
            self._lock = _lock(path.with_suffix(".lock"))
            if self._lock is not None:
                self.path = path
                return
        raise TargetError("every port of the running machine is in use", hint="end one of its other users")

    def close(self) -> None:
        """Let go; idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def announced() -> Iterator[tuple[Path, Announcement]]:
    """Yield the directories of the running machines that may be used, newest first."""
    found = list(run_directory().glob("vm-*/machine.json"))
    for path in sorted(found, key=_made, reverse=True):
        try:
            announcement = Announcement(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if _is_locked(path.parent / "lock"):
            yield path.parent, announcement


def sweep(home: Path) -> None:
    """Remove the directories of machines whose owner is gone."""
    for directory in home.glob("vm-*"):
        if not _is_locked(directory / "lock") and not _is_new(directory):
            shutil.rmtree(directory, ignore_errors=True)


def _made(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_new(directory: Path) -> bool:
    """Return whether a directory is so new that its owner may not have locked it yet."""
    import time

    return time.time() - _made(directory) < 10


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock, None where another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
