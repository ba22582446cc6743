"""The limit on open files: each link is one."""

from __future__ import annotations

# Links that fit in the usual soft limit of 1,024 beside what Python and a session have open.
_ALWAYS_ENOUGH = 900


def allow_descriptors(count: int) -> None:
    """Raise the soft limit on open files, as far as the hard one goes, if *count* more would not fit."""
    if count < _ALWAYS_ENOUGH:
        return
    import resource  # most plans have few sites

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 1024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        top = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, top), hard))
