"""Whose something in tracefs is: what a process makes there outlives it, so its name says which process made it."""

from __future__ import annotations

import os

from kprobes.engines.kernel.files import read_text

PREFIX = "kprobes_py"
# The inode number of the first pid namespace, in whose numbers the kernel's own records are.
FIRST_NAMESPACE = "4026531836"


def start_time(stat: str) -> str:
    """Return the start time in the text of a /proc/PID/stat (field 22), empty where there is none."""
    fields = stat.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def namespace() -> str:
    """Return the number of our pid namespace: of others nobody can tell whose process lives."""
    return str(os.stat("/proc/self/ns/pid").st_ino)  # noqa: PTH116  (no pathlib in the engine)


def group_of(pid: int) -> str:
    """Return the name for what the process *pid* makes; empty if there is no such process."""
    started = start_time(read_text(f"/proc/{pid}/stat"))
    return f"{PREFIX}_{namespace()}_{pid}_{started}" if started else ""


def is_abandoned(group: str, ours: str) -> bool:
    """Return whether *group* is such a name, of the pid namespace *ours*, and its process is gone."""
    parts = group.rsplit("_", 3)
    if len(parts) != 4 or parts[:2] != [PREFIX, ours] or not parts[2].isdigit():
        return False
    return group_of(int(parts[2])) != group
