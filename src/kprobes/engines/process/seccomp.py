"""System calls on behalf of a target that has seccomp filters.

The tracer can lift them for the moment, with CAP_SYS_ADMIN. Without, a filter might kill the target for a call that
we borrow a thread for, and it can't be read either. One case is safe all the same, and common: in a container every
process has the filter of the container, we too. If the target, we, and our nearest common ancestor have the same number
of filters, they are the same ones (filters are inherited and never taken away), so what we may call ourselves, the
target may call as well.
"""

from __future__ import annotations

import mmap
import os

from kprobes.engines.process import procfs

_MADV_WIPEONFORK = 18


def has_our_filters(pid: int, tid: int) -> bool:
    """Tell whether the thread *tid* of *pid* has just the seccomp filters that this process has."""
    try:
        ours = procfs.read_status(os.getpid()).filters
        common = procfs.read_status(_common_ancestor(pid)).filters
        return ours > 0 and ours == common == procfs.read_status(pid, tid).filters
    except OSError:
        return False


def _common_ancestor(pid: int) -> int:
    """Return the nearest process from which this one and *pid* both descend; the first of all if that isn't visible."""
    own, current = set(), os.getpid()
    while current:
        own.add(current)
        current = procfs.parent(current)
    while pid and pid not in own:
        pid = procfs.parent(pid)
    return pid or 1


def may_map() -> bool:
    """Tell whether this process's own filters allow the calls that attaching makes: a child of ours tries them out."""
    child = os.fork()
    if not child:
        status = 1
        try:
            _try_out()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def _try_out() -> None:
    piece = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_EXEC)
    piece.madvise(_MADV_WIPEONFORK)
    piece.close()
    os.close(os.memfd_create("kprobes", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
