"""Where the symbols of the running kernel are."""

from __future__ import annotations

import os

from kprobes.engines.kernel.features import probe_features

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.kernel.files import KernelFiles
    from kprobes.model.features import Features

_BTF = "/sys/kernel/btf"
_CGROUPS = "/sys/fs/cgroup"
_OF_KPROBES = {"blacklist": "kprobes/blacklist", "kprobes": "kprobes/list", "kprobes_enabled": "kprobes/enabled"}


class KernelFacts:
    """The facts of this machine's kernel; they read nothing before they are asked."""

    def __init__(self, files: KernelFiles) -> None:
        self._files = files
        self._features: Features | None = None

    @property
    def features(self) -> Features:
        """Return the answers of the feature probes."""
        if self._features is None:
            self._features = probe_features()
        return self._features

    def stamp(self) -> str:
        """Return a text that changes with each boot and each module that comes or goes."""
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
                boot = file.read().strip()
            modules = sorted(os.listdir("/sys/module"))  # noqa: PTH208
        except OSError:
            return os.urandom(8).hex()  # nothing tells: plans of now are of no use later
        return f"{boot} {' '.join(modules)}"

    def kallsyms(self) -> str:
        """Return the path of the kernel's symbols; their addresses are zero for a user without CAP_SYSLOG."""
        return "/proc/kallsyms"

    def btf(self, module: str = "") -> str | None:
        """Return the path of the raw BTF of vmlinux or of *module*, or None."""
        path = f"{_BTF}/{module or 'vmlinux'}"
        return path if "/" not in module and os.access(path, os.R_OK) else None

    def modules(self) -> Sequence[str]:
        """Return the names of the loaded modules that have BTF."""
        try:
            names = os.listdir(_BTF)  # noqa: PTH208  (no pathlib on the way to the first event)
        except OSError:
            return ()
        return tuple(sorted(name for name in names if name != "vmlinux"))

    def text(self, what: str) -> str | None:
        """Return one of the texts that `model.facts.Facts` names; None where there is none."""
        if what == "cgroups":
            return _cgroups()
        if what == "version":
            with open("/proc/version", encoding="utf-8") as file:  # noqa: PTH123
                return file.read()
        if what in _OF_KPROBES:
            return self._files.text("debugfs", _OF_KPROBES[what])
        if what == "functions":
            return self._files.text("tracefs", "available_filter_functions")
        if what == "events":
            return self._files.text("tracefs", "available_events")
        kind, _, name = what.partition(":")
        if kind == "format" and ".." not in name:
            return self._files.text("tracefs", f"events/{name}/format")
        return None

    def memory(self, address: int, size: int) -> bytes | None:
        """Return *size* bytes of the kernel at *address*, as they are now; None where they can't be read."""
        from kprobes.engines.kernel.kcore import read_kernel_memory

        return read_kernel_memory(address, size)


def _cgroups() -> str:
    """Return a line with the id and the path of each cgroup (version 2); the id is the inode number."""
    from contextlib import suppress

    lines = []
    for directory, _, _ in os.walk(_CGROUPS):
        with suppress(OSError):  # it went meanwhile
            lines.append(f"{os.stat(directory).st_ino} {directory[len(_CGROUPS) :] or '/'}\n")  # noqa: PTH116
    return "".join(lines)
