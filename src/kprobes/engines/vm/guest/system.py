"""Sets the guest up after boot: file systems, kernel modules, settings, the loopback interface.

Everything here is best effort on an older kernel, apart from what the channel needs: a setting that this kernel doesn't
have is simply not there.
"""

# No pathlib: an emulated CPU takes 0.1 s to import it.
# ruff: noqa: PTH103, PTH110, PTH208

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

LIBC = ctypes.CDLL(None, use_errno=True)

MOUNTS = (
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("tmpfs", "/tmp", "tmpfs"),  # noqa: S108
    ("tmpfs", "/run", "tmpfs"),
    ("devpts", "/dev/pts", "devpts"),
    ("tmpfs", "/dev/shm", "tmpfs"),  # noqa: S108
    ("tracefs", "/sys/kernel/tracing", "tracefs"),
    ("debugfs", "/sys/kernel/debug", "debugfs"),
    ("bpf", "/sys/fs/bpf", "bpf"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2"),
)

# Symbol addresses are visible and perf is open to all: whoever starts a guest owns it.
SETTINGS = (
    ("kernel/kptr_restrict", "0"),
    ("kernel/perf_event_paranoid", "-1"),
    ("kernel/unprivileged_bpf_disabled", "0"),
    ("kernel/yama/ptrace_scope", "0"),
    ("net/core/bpf_jit_enable", "1"),
    ("kernel/hostname", "kprobes"),
)

FINIT_MODULE = 313 if os.uname().machine == "x86_64" else 273  # the latter in include/uapi/asm-generic/unistd.h
BUSYBOX = "/usr/bin/busybox"
RNDRESEEDCRNG = 0x5207
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def set_up() -> None:
    """Mount, load the modules of the channel, apply the settings."""
    mount_all()
    if not os.path.exists("/usr/bin/sh"):
        os.spawnv(os.P_WAIT, BUSYBOX, [BUSYBOX, "--install", "-s", "/usr/bin"])  # noqa: S606
    load_modules("/lib/modules/channel")
    for name, value in SETTINGS:
        write_setting(f"/proc/sys/{name}", value)
    raise_loopback()


def mount_all() -> None:
    """Mount the kernel's file systems where the guest's programs look for them."""
    for source, target, kind in MOUNTS:
        os.makedirs(target, exist_ok=True)
        LIBC.mount(source.encode(), target.encode(), kind.encode(), 0, None)


def load_modules(directory: str) -> None:
    """Load the modules in *directory* in the order of their names."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    for name in names:
        descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        if LIBC.syscall(FINIT_MODULE, descriptor, b"", 0) < 0:
            print(f"kprobes: {name}: {os.strerror(ctypes.get_errno())}", flush=True)  # noqa: T201
        os.close(descriptor)


def write_setting(path: str, value: str) -> None:
    """Write *value* to a setting that may not exist on this kernel."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(descriptor, value.encode())
    except OSError:
        pass
    finally:
        os.close(descriptor)


def raise_loopback() -> None:
    """Bring up `lo`."""
    descriptor = LIBC.socket(2, 2, 0)
    if descriptor >= 0:
        try:
            fcntl.ioctl(descriptor, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
        except OSError as error:
            print(f"kprobes: lo: {error}", flush=True)  # noqa: T201
        os.close(descriptor)


def set_clock(nanoseconds: int) -> None:
    """Set the wall clock: the controller's time, since a restored guest still lives in the past."""
    LIBC.clock_settime(0, ctypes.byref((ctypes.c_long * 2)(*divmod(nanoseconds, 1_000_000_000))))


def stir(seed: bytes) -> None:
    """Mix *seed* into the random numbers: guests that go on from one image would all draw the same."""
    descriptor = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(descriptor, seed)
        fcntl.ioctl(descriptor, RNDRESEEDCRNG)
    except OSError:
        pass
    finally:
        os.close(descriptor)
