"""Real attempts at what a kernel may lack, with the smallest programs there are.

Each answers True, False, or None where it can't tell: a right is missing, so the kernel was not really asked. What is
attached for a trial goes on a function that nothing calls, and is taken off at once; for fentry on any function, since
the id of a known one would need the whole type information read.

Source: how each lack shows is in kernel/bpf/syscall.c, kernel/trace/bpf_trace.c and kernel/bpf/verifier.c, Linux 5.10
to 6.18.
"""

from __future__ import annotations

import errno
import os

from kprobes.engines.kernel import syscall
from kprobes.engines.kernel.counts import link_missed
from kprobes.engines.kernel.links import any_cpu, read_pmu
from kprobes.engines.kernel.syscall import (
    PERF_COUNT_SW_DUMMY,
    PERF_TYPE_SOFTWARE,
    AttachType,
    FileProbes,
    MapShape,
    MapType,
    PerfEvent,
    ProgramRequest,
    ProgramType,
)
from kprobes.errors import KprobesError, PrivilegeError
from kprobes.model.plan import Way

# r0 = 0; exit
_NOTHING = bytes.fromhex("b700000000000000 9500000000000000")
# r0 = bpf_get_attach_cookie(ctx); exit
_READ_COOKIE = bytes.fromhex("85000000ae000000 9500000000000000")

# The kernel's own target for tests of tracing: nothing calls it by itself. And others, for kernels built without it.
_QUIET = ("bpf_fentry_test1", "bpf_modify_return_test", "kernel_halt", "kernel_power_off")

_NOT_ASKED = (errno.EPERM, errno.EACCES)
_NO_SUCH_FUNCTION = (errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL)

_LAST_TYPE_ID = 0xFFFFF  # BTF_MAX_TYPE
_FUNCTION_ATTEMPTS = 48


def load_nothing(kind: int, attach_type: int = AttachType.NONE) -> int:
    """Load a program that does nothing; return its descriptor, or minus the errno."""
    return syscall.prog_load(ProgramRequest("kprobes_trial", kind, _NOTHING, "Dual MIT/GPL", attach_type))[0]


def _verdict(result: int, program: int = -1) -> bool | None:
    """Close a trial's descriptors and return its answer: *result* is a descriptor or minus an errno."""
    if program >= 0:
        os.close(program)
    if result >= 0:
        os.close(result)
        return True
    return None if -result in _NOT_ASKED else False


def has_kprobe() -> bool | None:
    """Return whether the perf kprobe source can arm a kernel function."""
    pmu = read_pmu("kprobe")
    if pmu is None:
        return False
    result = -errno.ENOENT
    for symbol in _QUIET:
        name = syscall.buffer(symbol.encode() + b"\0")
        result = syscall.perf_event_open(PerfEvent(pmu.type, 0, syscall.address_of(name), 0, cpu=any_cpu()))
        if -result not in _NO_SUCH_FUNCTION:
            return _verdict(result)
    return True  # it looked the names up, so it is there


def has_uprobe() -> bool | None:
    """Return whether the perf uprobe source can arm a file: one in memory that nobody runs."""
    pmu = read_pmu("uprobe")
    if pmu is None:
        return False
    fd = os.memfd_create("kprobes-trial")
    try:
        os.write(fd, b"\x90" * 64)
        path = syscall.buffer(f"/proc/self/fd/{fd}".encode() + b"\0")
        event = PerfEvent(pmu.type, 0, syscall.address_of(path), 0, cpu=any_cpu())
        return _verdict(syscall.perf_event_open(event))
    finally:
        os.close(fd)


def has_kprobe_multi() -> bool | None:
    """Return whether one link can hold many kernel functions, by putting one on a quiet function."""
    program = load_nothing(ProgramType.KPROBE, AttachType.KPROBE_MULTI)
    if program < 0:
        return _verdict(program)
    link = -errno.ENOENT
    for symbol in _QUIET:
        link = syscall.link_kprobe_multi(program, [symbol], [0], 0)
        if -link not in _NO_SUCH_FUNCTION:
            return _verdict(link, program)
    os.close(program)
    return None


def has_ring_buffer() -> bool | None:
    """Return whether there are BPF ring buffers (since Linux 5.8)."""
    try:
        fd = syscall.map_create("kprobes_trial", MapShape(MapType.RINGBUF, 0, 0, os.sysconf("SC_PAGESIZE")))
    except PrivilegeError:
        return None
    except KprobesError:
        return False
    return _verdict(fd)


def has_attach_cookie() -> bool | None:
    """Return whether a program can learn by a cookie which site it runs at (since Linux 5.15)."""
    request = ProgramRequest("kprobes_trial", ProgramType.KPROBE, _READ_COOKIE, "Dual MIT/GPL")
    return _verdict(syscall.prog_load(request)[0])


def has_perf_link() -> bool | None:
    """Return whether perf events can be linked to programs (since 5.15): then a bad event is refused as that."""
    program = load_nothing(ProgramType.TRACEPOINT)
    if program < 0:
        return _verdict(program)
    link = syscall.link_perf_event(program, -1, 0)
    os.close(program)
    return True if -link == errno.EBADF else _verdict(link)


def has_uprobe_multi() -> bool:
    """Return whether one uprobe link can have many places: then a directory is refused as what it is."""
    program = load_nothing(ProgramType.KPROBE, AttachType.UPROBE_MULTI)
    if program < 0:
        return False
    link = syscall.link_uprobe_multi(program, FileProbes("/", (0,), (0,)))
    os.close(program)
    if link >= 0:
        os.close(link)
    return -link == errno.EBADF


def tells_missed() -> bool:
    """Return whether a link of a kprobe tells its nmissed (since Linux 6.7): `counts.link_missed` says so of any link.

    This one is on a perf event that never happens.
    """
    program = load_nothing(ProgramType.PERF_EVENT)
    if program < 0:
        return False
    event = syscall.perf_event_open(PerfEvent(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY, cpu=any_cpu()))
    link = syscall.link_perf_event(program, event, 0) if event >= 0 else -errno.EINVAL
    try:
        return link >= 0 and link_missed(link, Way.KPROBE) >= 0
    finally:
        for fd in (link, event, program):
            if fd >= 0:
                os.close(fd)


def has_fentry() -> bool | None:
    """Return whether a program can be put on a function's own entry, by putting one on some function."""
    program, answer = _load_fentry()
    if program < 0:
        return answer
    return _verdict(syscall.raw_tracepoint_open(program, ""), program)


def _load_fentry() -> tuple[int, bool | None]:
    """Return an fentry program of some function, or -1 and the answer.

    The kernel says of each type id whether it is beyond the last one, not a function, or good. Functions stand together
    near the end of the ids, so the last id is found by halving (which may meet a function already), and a function by
    growing steps back from it.
    """
    result, log = _try_function(1)
    if result < 0 and "is not a function" not in log:
        return -1, (None if -result in _NOT_ASKED else False)
    low, high = 1, _LAST_TYPE_ID
    while result < 0 and high - low > 1:
        middle = (low + high) // 2
        result, log = _try_function(middle)
        if "is invalid" in log:
            high = middle
        else:
            low = middle
    step = 1
    for _ in range(_FUNCTION_ATTEMPTS):
        if result >= 0 or low <= step:
            break
        # Not a function: far off. A function that can't be traced: its neighbours are as good.
        step = step * 2 if "is not a function" in log else 1
        low -= step
        result, log = _try_function(low)
    return (result, True) if result >= 0 else (-1, None)


def _try_function(number: int) -> tuple[int, str]:
    """Load an fentry program for the type id *number*; return its descriptor or the errno's negative, and the log."""
    request = ProgramRequest(
        "kprobes_trial", ProgramType.TRACING, _NOTHING, "Dual MIT/GPL", AttachType.FENTRY, attach_btf_id=number
    )
    return syscall.prog_load(request, syscall.LogLevel.INSTRUCTIONS, 4096)


TRIALS = {
    "kprobe": has_kprobe,
    "uprobe": has_uprobe,
    "kprobe_multi": has_kprobe_multi,
    "fentry": has_fentry,
    "ring_buffer": has_ring_buffer,
    "attach_cookie": has_attach_cookie,
    "perf_link": has_perf_link,
}
