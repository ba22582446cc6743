"""Ids of cgroups, as `cgroup()` gives them, as paths, and the container that a path belongs to.

The id of a cgroup (version 2) is the inode number of its directory. Runtimes name a container's directory after it.
"""

from __future__ import annotations

import os
import re

ROOT = "/sys/fs/cgroup"
_ID = r"[0-9a-f]{64}"
# What runtimes make: docker/ID, docker-ID.scope, cri-containerd-ID.scope, crio-ID.scope, libpod-ID.scope,
# kubepods/.../podUID/ID, and lxc.payload.NAME or lxc/NAME, where the name is the id.
_HASHED = re.compile(rf"(?:^|-)({_ID})(?:\.scope)?$")
_LXC = re.compile(r"/lxc(?:\.payload\.|/)([^/]+)")


def container_of(path: str) -> str:
    """Return the id of the container whose cgroup *path* is, or lies in; empty for none.

    The innermost container counts. For LXC it is the container's name.
    """
    for part in reversed(path.split("/")):
        found = _HASHED.search(part)
        if found:
            return found[1]
    named = _LXC.search(path if path.startswith("/") else f"/{path}")
    return named[1] if named else ""


def cgroup_path(number: int, root: str = ROOT) -> str:
    """Return the path below *root* of the cgroup with the id *number*; empty where it is gone."""
    for directory, _, _ in os.walk(root):
        try:
            if os.stat(directory).st_ino == number:  # noqa: PTH116
                return directory[len(root) :] or "/"
        except OSError:
            continue
    return ""
