"""Output files: private, and replaced whole or not at all. Devices, pipes and terminals are written to."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from kprobes.errors import SyscallError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def replacing(path: str) -> Iterator[TextIO]:
    """Yield a stream whose text becomes the file *path* (mode 0600) when the block ends without an error.

    What is there and is no file (/dev/null, a pipe) stays what it is: the text goes there.

    Raises:
        SyscallError: the file can't be made there.
    """
    if _is_special(path):
        try:
            stream = open(path, "w", encoding="utf-8", errors="backslashreplace")  # noqa: PTH123, SIM115
        except OSError as error:
            raise SyscallError(f"can't write {path!r}", error.errno or 0) from error
        with stream:
            yield stream
        return
    temporary = f"{path}.{os.getpid()}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, 0o600)
    except OSError as error:
        raise SyscallError(
            f"can't write {path!r}", error.errno or 0, hint="is the directory there, and yours?"
        ) from error
    done = False
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
            yield stream
        os.replace(temporary, path)  # noqa: PTH105 - pathlib adds nothing here
        done = True
    finally:
        if not done:
            os.unlink(temporary)  # noqa: PTH108


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return False
