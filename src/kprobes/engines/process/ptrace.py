"""ptrace(2), typed: one function per request, errors with what was being done.

Every request must come from the thread that seized the tracee, and all but `seize` and `interrupt` need it stopped.
`TraceeGoneError` stands for ESRCH: the thread died (or was killed out of its stop), which is never a fault of ours.

Source: ptrace(2); arch/x86/include/asm/user_64.h (`struct user_regs_struct`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import time

from kprobes.errors import SyscallError, TargetError

WALL = 0x40000000  # __WALL: wait for every kind of child, clones included

PTRACE_GETREGS = 12
PTRACE_SETREGS = 13
PTRACE_CONT = 7
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_SYSEMU = 31
PTRACE_SINGLESTEP = 9
PTRACE_SETOPTIONS = 0x4200
PTRACE_GETEVENTMSG = 0x4201
PTRACE_GETSIGINFO = 0x4202
PTRACE_SETSIGINFO = 0x4203
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_LISTEN = 0x4208
PTRACE_GETSIGMASK = 0x420A
PTRACE_SETSIGMASK = 0x420B
PTRACE_GET_RSEQ_CONFIGURATION = 0x420F

OPTION_SYSGOOD = 1
OPTION_FORK = 2
OPTION_VFORK = 4
OPTION_CLONE = 8
OPTION_EXEC = 16
OPTION_SUSPEND_SECCOMP = 1 << 21

EVENT_FORK = 1
EVENT_VFORK = 2
EVENT_CLONE = 3
EVENT_EXEC = 4
EVENT_STOP = 128

SYSCALL_STOP_SIGNAL = 0x85  # SIGTRAP | 0x80, with OPTION_SYSGOOD


class Registers(ctypes.Structure):
    """`struct user_regs_struct`: the first 21 fields are those of `struct pt_regs`, in the same order."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            *("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di"),
            *("orig_ax", "ip", "cs", "flags", "sp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
        )
    ]

    r15: int
    r14: int
    r13: int
    r12: int
    bp: int
    bx: int
    r11: int
    r10: int
    r9: int
    r8: int
    ax: int
    cx: int
    dx: int
    si: int
    di: int
    orig_ax: int
    ip: int
    cs: int
    flags: int
    sp: int
    ss: int
    fs_base: int
    gs_base: int

    def copy(self) -> Registers:
        """Return a copy that can be changed alone."""
        return Registers.from_buffer_copy(self)


class RseqConfiguration(ctypes.Structure):
    """Where a thread's `struct rseq` is; *area* is 0 where none is registered."""

    _fields_ = [
        ("area", ctypes.c_uint64),
        ("size", ctypes.c_uint32),
        ("signature", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    ]

    area: int
    size: int
    signature: int


class TraceeGoneError(TargetError):
    """The thread *tid* died while it was traced."""

    def __init__(self, tid: int) -> None:
        super().__init__(f"thread {tid} is gone")
        self.tid = tid


_libc = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def _request(doing: str, request: int, tid: int, address: int = 0, data: int = 0) -> int:
    result: int = _ptrace(request, tid, address, data)
    if result == -1:
        number = ctypes.get_errno()
        if number == errno.ESRCH:
            raise TraceeGoneError(tid)
        raise SyscallError(f"{doing} thread {tid}", number)
    return result


def seize(tid: int, options: int = 0) -> None:
    """Become the tracer of *tid* without stopping it.

    Raises:
        TraceeGoneError: there is no such thread.
        SyscallError: EPERM: the kernel refuses (or the thread is a zombie, or traced already).
    """
    _request("seizing", PTRACE_SEIZE, tid, 0, options)


def interrupt(tid: int) -> None:
    """Ask *tid* to stop; it reports with EVENT_STOP."""
    _request("interrupting", PTRACE_INTERRUPT, tid)


def resume(tid: int, signal: int = 0) -> None:
    """Let *tid* run on, delivering *signal* (0: none)."""
    _request("resuming", PTRACE_CONT, tid, 0, signal)


def resume_to_syscall(tid: int, signal: int = 0) -> None:
    """Let *tid* run to the next entry into or exit from a system call, delivering *signal* (0: none)."""
    _request("resuming", PTRACE_SYSCALL, tid, 0, signal)


def resume_to_unmade_call(tid: int, signal: int = 0) -> None:
    """Let *tid* run to the next system call, which is not made: no seccomp filter sees it, and nothing but its
    registers changes."""
    _request("resuming", PTRACE_SYSEMU, tid, 0, signal)


def listen(tid: int) -> None:
    """Leave *tid* in its group stop (SIGSTOP and the like) until SIGCONT or an interrupt; it reports both."""
    _request("listening to", PTRACE_LISTEN, tid)


def step(tid: int, signal: int = 0) -> None:
    """Let *tid* run one instruction."""
    _request("stepping", PTRACE_SINGLESTEP, tid, 0, signal)


def detach(tid: int, signal: int = 0) -> None:
    """Let go of *tid*, which runs on as if it had never been traced."""
    _request("detaching from", PTRACE_DETACH, tid, 0, signal)


def set_options(tid: int, options: int) -> None:
    """Replace the OPTION_ bits of *tid*."""
    _request("setting options of", PTRACE_SETOPTIONS, tid, 0, options)


def event_message(tid: int) -> int:
    """Return what the last event stop brought: the new thread's id."""
    value = ctypes.c_ulong()
    _request("reading the event of", PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(value))
    return value.value


def registers(tid: int) -> Registers:
    """Return the registers of *tid*."""
    result = Registers()
    _request("reading registers of", PTRACE_GETREGS, tid, 0, ctypes.addressof(result))
    return result


def set_registers(tid: int, values: Registers) -> None:
    """Replace the registers of *tid*."""
    _request("writing registers of", PTRACE_SETREGS, tid, 0, ctypes.addressof(values))


def signal_mask(tid: int) -> int:
    """Return the blocked signals of *tid*: bit n - 1 for signal n."""
    value = ctypes.c_uint64()
    _request("reading the signal mask of", PTRACE_GETSIGMASK, tid, 8, ctypes.addressof(value))
    return value.value


def set_signal_mask(tid: int, mask: int) -> None:
    """Replace the blocked signals of *tid*."""
    value = ctypes.c_uint64(mask)
    _request("writing the signal mask of", PTRACE_SETSIGMASK, tid, 8, ctypes.addressof(value))


def signal_code(tid: int) -> int:
    """Return `si_code` of the signal that *tid* is stopped for."""
    info = (ctypes.c_int32 * 32)()
    _request("reading the signal of", PTRACE_GETSIGINFO, tid, 0, ctypes.addressof(info))
    return info[2]


def signal_info(tid: int) -> bytes:
    """Return the siginfo of the signal that *tid* is stopped for: 128 bytes."""
    info = ctypes.create_string_buffer(128)
    _request("reading the signal of", PTRACE_GETSIGINFO, tid, 0, ctypes.addressof(info))
    return info.raw


def set_signal_info(tid: int, info: bytes) -> None:
    """Replace the siginfo of the signal that *tid* is stopped for."""
    content = ctypes.create_string_buffer(info, 128)
    _request("changing the signal of", PTRACE_SETSIGINFO, tid, 0, ctypes.addressof(content))


def replace_fault_address(tid: int, old: int, new: int) -> None:
    """Let `si_addr` of the signal that *tid* is stopped for be *new* where it is *old*."""
    info = (ctypes.c_uint64 * 16)()
    _request("reading the signal of", PTRACE_GETSIGINFO, tid, 0, ctypes.addressof(info))
    if info[2] == old:
        info[2] = new
        _request("changing the signal of", PTRACE_SETSIGINFO, tid, 0, ctypes.addressof(info))


def rseq(tid: int) -> RseqConfiguration | None:
    """Return where `struct rseq` of *tid* is, or None where the kernel can't tell (before 5.13) or none is there."""
    result = RseqConfiguration()
    try:
        _request("reading rseq of", PTRACE_GET_RSEQ_CONFIGURATION, tid, ctypes.sizeof(result), ctypes.addressof(result))
    except SyscallError:
        return None
    return result if result.area else None


def peek(tid: int) -> int | None:
    """Return the next wait status of *tid*, which stays to be waited for, or None where it has nothing to say."""
    try:
        found = os.waitid(os.P_PID, tid, os.WEXITED | os.WSTOPPED | os.WNOWAIT | os.WNOHANG | WALL)
    except ChildProcessError:
        raise TraceeGoneError(tid) from None
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return found.si_status << 8
    return found.si_status if found.si_code in (os.CLD_KILLED, os.CLD_DUMPED) else found.si_status << 8 | 0x7F


# A stop that was asked for comes within microseconds; after so many looks one looks less often, and at the thread's
# state.
_BUSY_WAITS = 400
_BUSY_S = 0.00002
_LAZY_S = 0.001


def wait_any() -> tuple[int, int] | None:
    """Return (tid, wait status) of any child or tracee that has something to say, or None."""
    try:
        found, status = os.waitpid(-1, WALL | os.WNOHANG)
    except ChildProcessError:
        return None
    return (found, status) if found else None


def wait(tid: int, *, block: bool = True) -> int | None:
    """Return the wait status of *tid*, or None where it has nothing to say and *block* is false.

    Raises:
        TraceeGoneError: it isn't ours any more.
    """
    try:
        found, status = os.waitpid(tid, WALL | (0 if block else os.WNOHANG))
    except ChildProcessError:
        raise TraceeGoneError(tid) from None
    return status if found else None


def wait_stop(tid: int) -> int | None:
    """Return the next wait status of *tid*, or None once it is a zombie that can't tell its end yet.

    The first thread of a process that was killed reports its end only after every other thread has been waited for; a
    wait for it alone, while the others are ours too, would never return.

    Raises:
        TraceeGoneError: it isn't ours any more.
    """
    for _ in range(_BUSY_WAITS):
        status = wait(tid, block=False)
        if status is not None:
            return status
        time.sleep(_BUSY_S)
    while not is_zombie(tid):
        status = wait(tid, block=False)
        if status is not None:
            return status
        time.sleep(_LAZY_S)
    return wait(tid, block=False)


def is_zombie(tid: int) -> bool:
    """Tell whether *tid* has ended, though nobody may have been told so yet."""
    try:
        with open(f"/proc/{tid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


def is_end(status: int) -> bool:
    """Tell whether *status* says that the thread ended."""
    return os.WIFEXITED(status) or os.WIFSIGNALED(status)


def event(status: int) -> int:
    """Return the EVENT_ number of a stop, 0 for signal stops."""
    return status >> 16
