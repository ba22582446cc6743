"""Files that can be made again at any time: copies of kallsyms and indexed BTF, under `$XDG_CACHE_HOME/kprobes`.

Kernel addresses stand in some of them, so the directory is 0700, the files are 0600, and neither is trusted unless it
belongs to the user who runs us and nobody else can write it. Whatever fails here costs time, never an answer: a read
that fails is a miss and a write that fails is forgotten.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Of each kind so many files and bytes are kept, the newest first.
KEEP = 200
KEEP_BYTES = 200 << 20


def cache_directory() -> str | None:
    """Return the cache directory, made if needed; None where there is none to be trusted."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    if not root.startswith("/"):
        home = os.environ.get("HOME", "")
        if not home.startswith("/"):
            return None
        root = f"{home}/.cache"
    path = f"{root}/kprobes"
    try:
        _make(root, path)
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        return None
    return path


def _make(root: str, path: str) -> None:
    if os.access(path, os.W_OK):
        return
    from pathlib import Path

    Path(root).mkdir(mode=0o700, parents=True, exist_ok=True)
    Path(path).mkdir(mode=0o700, exist_ok=True)


def open_cached(name: str) -> int | None:
    """Return a descriptor of the cached file *name*, which the caller closes; None where there is none."""
    directory = cache_directory()
    if directory is None:
        return None
    try:
        descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
        return descriptor
    os.close(descriptor)
    return None


def read_cached(name: str) -> bytes | None:
    """Return the bytes of the cached file *name*, or None."""
    descriptor = open_cached(name)
    if descriptor is None:
        return None
    try:
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            return file.readall()
    except OSError:
        return None


def write_cached(name: str, chunks: Iterable[bytes | memoryview]) -> bool:
    """Put *chunks* into the cached file *name*, by rename; return whether it is there now.

    *name* is `kind-key`: of each kind the newest few are kept.
    """
    directory = cache_directory()
    if directory is None:
        return False
    temporary = f"{directory}/.{name}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600), "wb", buffering=0) as file:
            for chunk in chunks:
                _write_all(file.fileno(), memoryview(chunk).cast("B"))
        os.rename(temporary, f"{directory}/{name}")  # noqa: PTH104 - pathlib adds nothing here
    except OSError:
        _remove(temporary)
        return False
    _trim(directory, name.partition("-")[0])
    return True


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _trim(directory: str, kind: str) -> None:
    aged = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith(f"{kind}-"):
                    found = entry.stat(follow_symlinks=False)
                    aged.append((found.st_mtime, found.st_size, entry.path))
    except OSError:
        return
    total = 0
    for place, (_, size, path) in enumerate(sorted(aged, reverse=True)):
        total += size
        if place >= KEEP or (place and total > KEEP_BYTES):
            _remove(path)


def _remove(path: str) -> None:
    from pathlib import Path

    try:
        Path(path).unlink()
    except OSError:
        return
