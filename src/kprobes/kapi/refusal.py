"""What went wrong as the kernel's calls would say it: an errno with its name, and the words of the error behind it.

Source: kernel/kprobes.c, kernel/trace/trace_kprobe.c.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager

from kprobes.errors import (
    AmbiguousSymbolError,
    KprobesError,
    PrivilegeError,
    RegistrationError,
    SymbolNotFoundError,
    SyscallError,
    TargetError,
    UnprobeableError,
    UnsafeSiteError,
    UnsupportedError,
    UsageError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# The first that fits: leaves of the tree of errors before what they derive from.
_NAMES: tuple[tuple[type[KprobesError], str], ...] = (
    (SymbolNotFoundError, "ENOENT"),
    (AmbiguousSymbolError, "EADDRNOTAVAIL"),
    (UnsafeSiteError, "EOPNOTSUPP"),
    (UnprobeableError, "EINVAL"),
    (UsageError, "EINVAL"),
    (PrivilegeError, "EPERM"),
    (UnsupportedError, "EOPNOTSUPP"),
    (TargetError, "ESRCH"),
    (SyscallError, "EIO"),
)
# One number has two names, and one of the kernel's own (ENOTSUPP) means the same as another.
_NUMBERS = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP", 524: "EOPNOTSUPP"}
_HINTS = {
    "ENOENT": "the kernel's names stand in /proc/kallsyms, a program's in `kprobes list -p PID`",
    "EINVAL": "`kprobes explain` says what a probe can do there",
    "EILSEQ": "`kprobes explain FUNCTION` shows where its instructions begin",
    "EOPNOTSUPP": "put the probe on another instruction: `kprobes explain FUNCTION` shows them",
    "ESRCH": "the target is there no more",
}


@contextmanager
def told_as_errno(doing: str) -> Iterator[None]:
    """Turn what fails inside into a `RegistrationError`. Mistakes in handlers stay what they are: they have a place."""
    try:
        yield
    except RegistrationError:
        raise
    except KprobesError as error:
        name = name_of(error)
        if not name:
            raise
        hint = error.hint or _HINTS.get(name, "")
        raise RegistrationError(f"{doing}: {error.what}", name, hint=hint) from error


def name_of(error: KprobesError) -> str:
    """Return the name of the errno that *error* is to the kernel's own interface; empty for a mistake in a handler."""
    number = getattr(error, "number", 0) or getattr(error, "errno", None)
    if number in _NUMBERS:
        return _NUMBERS[number]
    return next((name for kind, name in _NAMES if isinstance(error, kind)), "")
