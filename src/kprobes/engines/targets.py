"""The targets a user names, and how each is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.port import Engine


class Target(Protocol):
    """Something that can be probed."""

    def open(self) -> Engine:
        """Return an engine for it; closing the engine lets go of the target."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """This machine's own kernel."""

    def open(self) -> Engine:
        """Return the kernel engine."""
        from kprobes.engines.kernel.engine import KernelEngine

        return KernelEngine()


@dataclass(frozen=True, slots=True)
class Machine:
    """A kernel in a box: a stock Debian kernel by name (`6.12`) or any bzImage by path, booted in QEMU.

    A machine of that kernel that is already up (`kprobes vm`) is used; else one is booted and goes with the engine.
    """

    kernel: str = ""
    cpus: int = 2
    memory_mb: int = 512
    copy: Sequence[str] = ()

    def open(self) -> Engine:
        """Return the engine inside the guest.

        Raises:
            UnsupportedError: QEMU is missing. DownloadError: the kernel can't be had. TargetError: the guest died.
        """
        from kprobes.engines.vm.machine import open_machine

        return open_machine(self)
