#!/usr/bin/python3 -ISB
"""The same as definitions.c, for a guest that has Python and no compiler for its architecture: EVENTS INPUT."""

import os
import sys

TRACEFS = "/sys/kernel/tracing/"


def write(path: str, content: bytes, flags: int = os.O_TRUNC) -> int:
    """Write *content* by one call; return the errno."""
    descriptor = os.open(path, os.O_WRONLY | flags)
    try:
        return 0 if not content or os.write(descriptor, content) == len(content) else -1
    except OSError as error:
        return error.errno or -1
    finally:
        os.close(descriptor)


def show(path: str, mark: bytes) -> bytes:
    """Return the lines of a file, each behind its *mark*."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - no pathlib in the guest
        return b"".join(mark + b" " + line + b"\n" for line in file.read().split(b"\n") if line)


def main(name: str, source: str) -> None:
    path, log = TRACEFS + name, TRACEFS + "error_log"
    write("/sys/kernel/rcu_expedited", b"1")
    write(path, b"")
    write(log, b"")
    used = False
    with open(source, "rb") as lines:  # noqa: PTH123
        for line in lines:
            if line == b"\n":
                if used:
                    write(path, b"")
                used = False
                continue
            number = write(path, line, os.O_APPEND)
            said = show(log, b"E") if number else show(path, b"L")
            if number:
                write(log, b"")
            else:
                used = True
            sys.stdout.buffer.write(b"= %d\n" % number + said + b".\n")
    write(path, b"")
    write("/sys/kernel/rcu_expedited", b"0")


main(sys.argv[1], sys.argv[2])
