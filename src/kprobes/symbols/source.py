"""Input files, read whole and never beyond a limit. (No pathlib: it takes 7 ms to import, before a first event.)"""

from __future__ import annotations

import os

from kprobes.errors import FormatError

# /proc and /sys hand out a page at a time, however much is asked for.
CHUNK = 1 << 16


def read_source(path: str, limit: int) -> bytes:
    """Return the bytes of the file *path*, whose size need not be known (/proc and /sys don't tell).

    Raises:
        FormatError: it can't be read, or is larger than *limit* bytes.
    """
    chunks = []
    total = 0
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb", buffering=0) as file:
            # A file that tells its size comes in one piece, except from /sys.
            size = max(min(os.fstat(file.fileno()).st_size, limit) + 1, CHUNK)
            while chunk := file.read(size):
                chunks.append(chunk)
                size = CHUNK
                total += len(chunk)
                if total > limit:
                    raise FormatError(f"{path} is larger than {limit >> 10} KiB, the most that is read of such a file")
    except OSError as problem:
        raise FormatError(f"{path} can't be read: {problem.strerror}") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
