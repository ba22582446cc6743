"""Real attempts at what a kernel may lack, with the smallest program there is."""

from __future__ import annotations

import errno
import os

from kprobes.engines.kernel import syscall
from kprobes.engines.kernel.syscall import AttachType, FileProbes, ProgramRequest, ProgramType

# r0 = 0; exit
_NOTHING = bytes.fromhex("b700000000000000 9500000000000000")


def load_nothing(kind: int, attach_type: int = AttachType.NONE, btf_id: int = 0) -> int:
    """Load a program that does nothing; return its descriptor, or minus the errno."""
    request = ProgramRequest("kprobes_trial", kind, _NOTHING, "Dual MIT/GPL", attach_type, attach_btf_id=btf_id)
    return syscall.prog_load(request)[0]


def has_uprobe_multi() -> bool:
    """Return whether one uprobe link can have many places: then a directory is refused as what it is (EBADF)."""
    program = load_nothing(ProgramType.KPROBE, AttachType.UPROBE_MULTI)
    if program < 0:
        return False
    try:
        link = syscall.link_uprobe_multi(program, FileProbes("/", (0,), (0,)))
    finally:
        os.close(program)
    if link >= 0:
        os.close(link)
    return -link == errno.EBADF
