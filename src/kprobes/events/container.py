"""The container that a cgroup belongs to: runtimes name a container's directory after it."""

from __future__ import annotations

import re

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
