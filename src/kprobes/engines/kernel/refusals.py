"""What an errno of an attach means, in words: why a place can't be probed. Read only after a refusal.

Source: kernel/kprobes.c, kernel/trace/trace_kprobe.c, kernel/events/uprobes.c, kernel/trace/bpf_trace.c, Linux 6.18.
"""

from __future__ import annotations

import errno
import os

from kprobes.engines.kernel.syscall import ENOTSUPP, failure
from kprobes.errors import (
    DefinitionError,
    PrivilegeError,
    SymbolNotFoundError,
    SyscallError,
    TargetError,
    UnprobeableError,
    UnsupportedError,
)
from kprobes.model.plan import MULTI_WAYS, RETURN_WAYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.errors import KprobesError
    from kprobes.model.plan import Site

_LOGGED = r"^\[ *[0-9.]+\] [\w ]+: error: (?P<message>.*)\n  Command: (?P<command>.*)\n(?P<gap> *)\^"
_LOG_GAP = len("  Command: ")
_LIST_HINT = "`kprobes info {name}` says more"

_KERNEL_REASONS = {
    errno.EILSEQ: "the address is not the beginning of an instruction",
    errno.EINVAL: "the kernel keeps probes out of this place (blacklisted, not code, or a jump label)",
    errno.EADDRNOTAVAIL: "several symbols have this name",
    errno.EBUSY: "another user of this function excludes probes",
    errno.EOPNOTSUPP: "its instruction can't be run out of line",
    ENOTSUPP: "its instruction can't be run out of line",
    errno.E2BIG: "too many probes or too much data for it",
    errno.EFAULT: "the address is not mapped",
    errno.ESRCH: "no function of this name can be traced",
    errno.EEXIST: "the function is already being replaced by something else",
}

_ARM64_REASON = (
    "the kernel keeps probes out of this place (no multiple of 4, ftrace's own instruction at +4, one that can't be "
    "simulated, blacklisted, or not code)"
)

_FILE_REASONS = {
    errno.EINVAL: "not a regular file, or the offset lies beyond its end",
    errno.EOPNOTSUPP: "the kernel's uprobes don't support the instruction there",
    ENOTSUPP: "the kernel's uprobes don't support the instruction there",
    errno.EIO: "the instruction can't be read from the file",
    errno.EBUSY: "another user of this place excludes uprobes",
    errno.EILSEQ: "the offset is not the beginning of an instruction",
    errno.EPERM: "the file system does not allow it",
}

_COUNTER_REASON = "the place or its reference counter is none of the file's, or another probe there has another counter"


def place_of(site: Site) -> str:
    """Return *site* as a person would write it."""
    where = site.symbol or (f"{site.path}:{site.address:#x}" if site.path else f"{site.address:#x}")
    return site.name or (f"{where}+{site.offset:#x}" if site.offset else where)


def kernel_refusal(site: Site, way: str, number: int) -> KprobesError:
    """Return the error for *number*, got when a probe of *way* was put on the kernel function of *site*."""
    place = place_of(site)
    if number in (errno.EPERM, errno.EACCES):
        return _no_right(f"attaching a {way} to {place}", number)
    if way in MULTI_WAYS and number in (errno.EINVAL, errno.ESRCH, errno.ENOENT):
        return UnprobeableError(place, "it is not the beginning of a function that ftrace can trace")
    if number == errno.ENOENT:
        if site.symbol:
            return SymbolNotFoundError(site.symbol, where=f"module {site.module}" if site.module else "this kernel")
        gone = "the code there is gone (initialisation code, or a module that was unloaded)"
        return UnprobeableError(place, gone, number=number)
    if number == errno.EINVAL and way in RETURN_WAYS and site.offset:
        return UnprobeableError(place, "a return probe must be at the beginning of a function")
    if number == errno.EADDRNOTAVAIL:
        return UnprobeableError(place, _KERNEL_REASONS[number], hint="give the address, or MODULE:NAME", number=number)
    if number == errno.EINVAL and site.offset and os.uname().machine == "aarch64":
        return UnprobeableError(place, _ARM64_REASON, number=number)
    if number in _KERNEL_REASONS:
        hint = _LIST_HINT.format(name=site.symbol or place)
        return UnprobeableError(place, _KERNEL_REASONS[number], hint=hint, number=number)
    return SyscallError(f"attaching a {way} to {place}", number)


def file_refusal(site: Site, way: str, number: int) -> KprobesError:
    """Return the error for *number*, got when a uprobe was put on the file offset of *site*."""
    place = place_of(site)
    if number == errno.ENOENT:
        return TargetError(f"there is no file {site.path!r}", hint="give the path of a program or shared object")
    if number == errno.ESRCH:
        return TargetError(f"the process of {place} is gone")
    if number == errno.EACCES:
        return _no_right(f"attaching a {way} to {place}", number)
    if number == errno.EPERM:
        return failure(f"attaching a {way} to {place}", number)
    if number == errno.EINVAL and site.counter:
        return UnprobeableError(place, _COUNTER_REASON, number=number)
    if number in _FILE_REASONS:
        return UnprobeableError(place, _FILE_REASONS[number])
    return SyscallError(f"attaching a {way} to {place}", number)


def tracepoint_refusal(site: Site, way: str, number: int) -> KprobesError:
    """Return the error for *number*, got when a program was put on the tracepoint of *site*."""
    if number == errno.ENOENT:
        return SymbolNotFoundError(site.symbol, where="the kernel's tracepoints", hint="see events/ in tracefs")
    if number in (errno.EPERM, errno.EACCES):
        return _no_right(f"attaching to the tracepoint {place_of(site)}", number)
    return SyscallError(f"attaching a {way} to {place_of(site)}", number)


def definition_refusal(definition: str, number: int, log: str) -> KprobesError:
    """Return the error for *number*, got when *definition* was written to tracefs whose error log is *log*: with the
    kernel's message and caret, if the last entry there is about it."""
    if number in (errno.EPERM, errno.EACCES):
        return UnsupportedError("tracefs can't be written", hint="run as root, or add --vm")
    import re  # only for a refusal

    logged = list(re.finditer(_LOGGED, log, re.MULTILINE))
    if not logged or definition.split()[-1] not in logged[-1]["command"]:
        return DefinitionError("", number, place=(definition, None))
    last = logged[-1]
    return DefinitionError(last["message"], number, place=(last["command"], len(last["gap"]) - _LOG_GAP))


def no_cookies(site: Site, way: str) -> UnsupportedError:
    """Return the error for a program that needs cookies on a kernel that has none for *way*."""
    return UnsupportedError(
        f"this kernel can't tell the sites of one {way} program apart ({place_of(site)})",
        hint="the plan was made for another kernel: run the command again without its cache",
    )


def _no_right(doing: str, number: int) -> KprobesError:
    if number == errno.EACCES:
        return PrivilegeError(
            f"{doing}: not permitted",
            hint="CAP_PERFMON is missing and /proc/sys/kernel/perf_event_paranoid forbids it: run as root",
        )
    return failure(doing, number)
