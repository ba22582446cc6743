"""Where things are kept: the cache of kernels, facts and images, and the directory of running machines.

Everything is private (0700), written beside its place and renamed, so that what is there is whole.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Iterator


def cache_directory(*parts: str) -> Path:
    """Return a directory of the cache, made if need be: `$XDG_CACHE_HOME/kprobes/...`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return private_directory(Path(base, "kprobes", *parts), above=1 + len(parts))


def run_directory() -> Path:
    """Return the directory of the sockets of running machines: `$XDG_RUNTIME_DIR/kprobes`, or `run` in the cache.

    Raises:
        TargetError: it is not ours alone.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = private_directory(Path(runtime, "kprobes")) if runtime and Path(runtime).is_dir() else cache_directory("run")
    status = os.lstat(path)
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise TargetError(f"{path} is open to other users", hint=f"chmod 700 {path}, or remove it")
    return path


def private_directory(path: Path, above: int = 1) -> Path:
    """Make the directory *path* with mode 0700; so are the *above* - 1 levels over it where they are missing."""
    if not path.is_dir():
        if above > 1:
            private_directory(path.parent, above - 1)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file beside *path* and rename it, so that nobody ever sees a part of it."""
    with replacing(path, mode) as descriptor:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]


@contextmanager
def replacing(path: Path, mode: int = 0o600) -> Iterator[int]:
    """Give a descriptor to write; what was written becomes *path* if nothing is raised."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        yield descriptor
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def sweep(directory: Path, pattern: str) -> None:
    """Remove what a process that was killed left half made; the caller holds the lock under which it is made."""
    import shutil

    for leftover in directory.glob(pattern):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file against a second process that would make the same thing."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
