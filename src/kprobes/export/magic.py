"""How a bundle is told from a script: asked at each `kprobes run`, so nothing else is imported for it."""

from __future__ import annotations

import os
import stat

MAGIC = b"KPB1"


def is_bundle(path: str) -> bool:
    """Return whether the file *path* begins like a bundle; a pipe, which can be read only once, isn't looked into."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return False
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False
