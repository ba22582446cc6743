"""Which right is missing when the kernel says EPERM. Read only after a refusal."""

from __future__ import annotations

import os

from kprobes.engines.kernel import syscall
from kprobes.engines.kernel.files import read_bytes, read_text
from kprobes.errors import PrivilegeError

_CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}


def effective_capabilities(status: str) -> int:
    """Return the effective capability bits in the text of /proc/PID/status (0 where there are none)."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def explain(status: str, lockdown: str, unprivileged: str) -> str:
    """Return which right is missing and how to get it.

    Args are the texts of /proc/self/status, /sys/kernel/security/lockdown and
    /proc/sys/kernel/unprivileged_bpf_disabled; empty where unreadable.
    """
    held = effective_capabilities(status)
    missing = [name for name in ("CAP_BPF", "CAP_PERFMON") if not held >> _CAPABILITIES[name] & 1]
    admin = held >> _CAPABILITIES["CAP_SYS_ADMIN"] & 1
    if missing and not admin:
        bpf = f" (unprivileged_bpf_disabled is {unprivileged.strip()})" if unprivileged.strip() not in ("", "0") else ""
        return (
            f"missing {' and '.join(missing)}{bpf}: run as root, or give the interpreter cap_bpf and "
            "cap_perfmon with setcap; or probe a kernel in a box with --vm, or your own process with -p PID"
        )
    if "[none]" not in lockdown and "[" in lockdown:
        mode = lockdown.split("[", 1)[1].split("]", 1)[0]
        return f"kernel lockdown is on ({mode}), which forbids this: boot without Secure Boot, or use --vm"
    if not admin:
        return "CAP_SYS_ADMIN is missing, which this step needs besides CAP_BPF and CAP_PERFMON: run as root"
    return "a container or a security module forbids it: run outside of the container, or use --vm"


def _lockdown() -> str:
    """Return the kernel's lockdown modes with the present one in brackets, also where securityfs is not mounted."""
    text = read_text("/sys/kernel/security/lockdown")
    if text:
        return text
    mount = syscall.mount_private("securityfs")
    if mount < 0:
        return ""
    try:
        return (read_bytes("lockdown", directory=mount) or b"").decode("ascii", "replace")
    finally:
        os.close(mount)


def missing_right(doing: str) -> PrivilegeError:
    """Return the error for an EPERM met while *doing* something."""
    hint = explain(
        read_text("/proc/self/status"),
        _lockdown(),
        read_text("/proc/sys/kernel/unprivileged_bpf_disabled"),
    )
    return PrivilegeError(f"{doing}: not permitted", hint=hint)
