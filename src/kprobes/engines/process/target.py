"""The target: a running process, or a program that we start. What can't be probed is refused here, with the reason.

Who may trace whom is the kernel's decision (ptrace(2), "Ptrace access mode checking"); we ask it by opening
/proc/PID/mem, which is checked as attaching is, and explain a refusal. Nothing works around one.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs
from kprobes.engines.process.registry import Identity
from kprobes.errors import PrivilegeError, TargetError, UnsupportedError

if TYPE_CHECKING:
    from kprobes.engines.process.engine import ProcessEngine

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_CAP_SYS_PTRACE = 19
_ELF64, _X86_64 = 2, 62
_PF_KTHREAD = 0x00200000
_EXEC_S = 0.001
_TRACER_S = 0.5


@dataclass(frozen=True, slots=True)
class Process:
    """A process by its id, or a program to start: `Process(1234)`, `Process.spawn(["./server", "-p", "80"])`.

    *exact_faults*: where a probed instruction faults, the program's signal handler sees its address rather than that of
    our copy. All threads stay traced for it, which makes their signals slower.
    """

    pid: int = 0
    argv: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] | None = None
    exact_faults: bool = False

    @classmethod
    def spawn(
        cls, argv: list[str] | tuple[str, ...], *, env: dict[str, str] | None = None, exact_faults: bool = False
    ) -> Process:
        """Return a target that is started by us; its probes are in place before its first instruction.

        Its shared objects are mapped by then, their initialisers have not run where the loader leaves that to the
        program's own start.
        """
        return cls(0, tuple(argv), None if env is None else tuple(env.items()), exact_faults)

    def open(self) -> ProcessEngine:
        """Return the process engine.

        Raises:
            TargetError, PrivilegeError, UnsupportedError: why this process can't be probed.
        """
        from kprobes.engines.process.engine import ProcessEngine

        return ProcessEngine(self)


def identify(pid: int) -> Identity:
    """Return the identity of the process *pid*, once it is sure that it can be probed.

    Raises:
        TargetError: it doesn't exist, is dead, is a kernel thread, or is traced by another.
        UnsupportedError: it doesn't run x86-64 code.
        PrivilegeError: the kernel doesn't let us trace it; the hint names the setting.
    """
    try:
        status = procfs.read_status(pid)
        start_time = procfs.read_start_time(pid)
    except (FileNotFoundError, ProcessLookupError):
        raise TargetError(f"there is no process {pid}", hint="it may have ended: look again with `ps`") from None
    if procfs.leader(pid) != pid:
        raise TargetError(f"{pid} is a thread, not a process", hint=f"probe its process, {procfs.leader(pid)}")
    if status.state in "ZX":
        if not _lives_on(pid):
            raise TargetError(f"process {pid} has ended and waits for its parent to notice (zombie)")
    elif _is_kernel_thread(pid):
        raise TargetError(f"{pid} is a thread of the kernel ({status.name})", hint="probe the kernel itself instead")
    if status.tracer and not _is_let_go(pid):
        raise TargetError(
            f"process {pid} is traced by process {status.tracer} ({_name(status.tracer)}) already",
            hint="a process has one tracer at a time: end the other first",
            number=errno.EBUSY,
        )
    lead = procfs.live_thread(pid)
    check_access(lead, status)
    check_architecture(lead)
    return Identity(pid, start_time)


def only_ancestors_may_trace(pid: int) -> bool:
    """Tell whether this process may trace *pid* as its ancestor, and a process beside it may not (Yama, scope 1)."""
    if _yama() != 1 or _has_ptrace_capability():
        return False
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = procfs.parent(pid)
    return False


def _is_let_go(pid: int) -> bool:
    """Wait a moment for the tracer to go: a session that was killed is still letting go, or another one attaches."""
    end = time.monotonic() + _TRACER_S
    while time.monotonic() < end:
        time.sleep(_EXEC_S)
        try:
            if not procfs.read_status(pid).tracer:
                return True
        except OSError:
            return True
    return False


def _lives_on(pid: int) -> bool:
    """Tell whether other threads live on after the first one ended."""
    try:
        return any(procfs.read_status(pid, tid).state not in "ZX" for tid in procfs.thread_ids(pid))
    except OSError:
        return False


def _is_kernel_thread(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        text = file.read()
    return bool(int(text[text.rindex(")") + 2 :].split()[6]) & _PF_KTHREAD)


def _name(pid: int) -> str:
    try:
        return procfs.read_status(pid).name
    except OSError:
        return "?"


def check_access(pid: int, status: procfs.Status, tries: int = 20) -> None:
    """Make sure that the kernel lets us look into the thread *pid*, which has *status*.

    Raises:
        TargetError: it has ended. PrivilegeError: it is not ours to look at; the hint names the setting.
    """
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.ESRCH and tries and procfs.read_status(pid).state not in "ZX":
            time.sleep(_EXEC_S)  # it is in the middle of an exec, between two memories
            check_access(pid, status, tries - 1)
            return
        if error.errno in {errno.ENOENT, errno.ESRCH}:
            raise TargetError(f"process {pid} ended") from None
        if error.errno not in {errno.EACCES, errno.EPERM}:
            raise TargetError(f"the memory of process {pid} can't be opened: {os.strerror(error.errno or 0)}") from None
        why, hint = explain_refusal(status.uids, os.geteuid(), _yama(), _has_ptrace_capability())
        raise PrivilegeError(f"process {pid} may not be traced: {why}", hint=hint) from None


def explain_refusal(uids: tuple[int, ...], euid: int, yama: int, capable: bool) -> tuple[str, str]:
    """Return why the kernel refuses, and what would help.

    *uids* are the target's, *euid* is ours, *yama* is kernel.yama.ptrace_scope (0 without Yama), *capable* tells
    whether we have CAP_SYS_PTRACE.
    """
    if capable:
        return "a security module forbids it", "look into the kernel log (SELinux, AppArmor, lockdown)"
    if euid == 0:
        return (
            "this root has no CAP_SYS_PTRACE, as in a container",
            "start the container with --cap-add SYS_PTRACE",
        )
    if any(uid != euid for uid in uids):
        return f"it belongs to user {uids[0] if uids else '?'}, we are user {euid}", "run as that user, or as root"
    if yama == 1:
        return (
            "kernel.yama.ptrace_scope is 1, which allows descendants only",
            "start the program by `kprobes ... -- COMMAND`, or set kernel.yama.ptrace_scope to 0, or run as root",
        )
    if yama == 2:
        return "kernel.yama.ptrace_scope is 2, which allows it to root only", "run as root"
    if yama > 2:
        return "kernel.yama.ptrace_scope is 3, which forbids it until the next boot", "boot without it"
    return (
        "it is not dumpable or in another user namespace (setuid program, container, PR_SET_DUMPABLE)",
        "run as root",
    )


def _yama() -> int:
    try:
        with open(_YAMA, encoding="utf-8") as file:  # noqa: PTH123
            return int(file.read())
    except OSError:
        return 0


def _has_ptrace_capability() -> bool:
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_PTRACE & 1)
    return False


def check_architecture(pid: int) -> None:
    """Make sure that the process *pid* runs 64-bit x86 code.

    Raises:
        UnsupportedError: it doesn't.
        TargetError: that can't be told.
    """
    if os.uname().machine != "x86_64":
        raise UnsupportedError(
            f"the process engine needs an x86-64 machine, and this one is {os.uname().machine}",
            hint="--engine uprobe takes the kernel's uprobes",
        )
    try:
        with open(f"/proc/{pid}/exe", "rb") as file:  # noqa: PTH123
            head = file.read(20)
    except OSError:
        raise TargetError(f"the program of process {pid} can't be read") from None
    if head[:4] != b"\x7fELF" or head[4] != _ELF64 or int.from_bytes(head[18:20], "little") != _X86_64:
        bits = "32-bit" if head[4:5] == b"\x01" else "another architecture's"
        raise UnsupportedError(f"process {pid} runs {bits} code", hint="the process engine probes 64-bit x86 programs")
