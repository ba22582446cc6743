"""What the kernel itself counts of programs and links.

The kernel tells how long its `info` structs are, and so whether it knows a counter: `recursion_misses` of a program is
there since Linux 5.12, `missed` of a kprobe (nmissed, of a return probe both kinds) or kprobe.multi link since 6.7.

Source: struct bpf_prog_info and struct bpf_link_info, include/uapi/linux/bpf.h, Linux 6.18.
"""

from __future__ import annotations

import struct

from kprobes.engines.kernel import syscall
from kprobes.model.plan import MULTI_WAYS, Way

_PROGRAM_INFO = 224
_RECURSION_MISSES = 208
_LINK_INFO = 64
_MULTI_MISSED, _KPROBE_MISSED, _KPROBE_INFO_END = 32, 48, 56

_TOLD_BY_LINK = MULTI_WAYS | {Way.KPROBE, Way.KRETPROBE}


def recursion_misses(program: int) -> int:
    """Return how often *program* did not run since it, or another on this CPU, was running; -1 where not told."""
    info = syscall.buffer(_PROGRAM_INFO)
    known = syscall.object_info(program, info, "reading the counts of a program")
    return int(struct.unpack_from("<Q", info, _RECURSION_MISSES)[0]) if known >= _RECURSION_MISSES + 8 else -1


def link_missed(link: int, way: str) -> int:
    """Return what a kprobe or kprobe.multi *link* has missed; -1 where the kernel does not tell."""
    info = syscall.buffer(_LINK_INFO)
    known = syscall.object_info(link, info, "reading the counts of a link")
    if known < _KPROBE_INFO_END:
        return -1
    return int(struct.unpack_from("<Q", info, _MULTI_MISSED if way in MULTI_WAYS else _KPROBE_MISSED)[0])


def missed(program: int, way: str, links: list[int]) -> int:
    """Return the misses of *program* at all its *links*.

    Where the kernel keeps a count that it does not tell, the answer is -1, unless what it does tell is more than 0.
    """
    own = recursion_misses(program)
    if way not in _TOLD_BY_LINK:
        return own
    try:
        told = [link_missed(link, way) for link in links]
    except OSError:
        told = [-1]  # the descriptor is that of a perf event, not of a link: a kernel before 5.15
    if own < 0 or -1 in told:
        return own if own > 0 else -1
    return own + sum(told)
