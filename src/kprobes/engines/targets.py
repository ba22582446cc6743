"""The targets a user names, and how each is opened."""

from __future__ import annotations

from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from kprobes.engines.port import Engine
    from kprobes.engines.vm.machine import Machine as Guest

    class Target(Protocol):
        """Something that can be probed."""

        def open(self) -> Engine:
            """Return an engine for it; closing the engine lets go of the target."""

    class Known(Target, Protocol):
        """A kernel, of which something is known beforehand."""

        def look(self) -> Engine:
            """Return an engine to ask for its facts: as `open`, but nothing is started before it is needed."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """This machine's own kernel."""

    def open(self) -> Engine:
        """Return the kernel engine."""
        from kprobes.engines.kernel.engine import KernelEngine

        return KernelEngine()

    def look(self) -> Engine:
        """Return the kernel engine."""
        return self.open()


@dataclass(frozen=True, slots=True)
class Machine:
    """A kernel in a box: a stock Debian kernel by name (`6.12`) or any bzImage by path, booted in QEMU. With *arch*
    `arm64` it is one of that architecture.

    A machine of that kernel that is already up (`kprobes vm`) is used; else one is booted and goes with the engine.
    *progress* is told what takes long: (what, bytes done, bytes in all).
    """

    kernel: str = ""
    cpus: int = 2
    memory_mb: int = 512
    arch: str = ""
    progress: Callable[[str, int, int], None] | None = None

    def open(self) -> Engine:
        """Return the engine inside the guest, which comes up while the caller goes on.

        Raises:
            UnsupportedError: QEMU is missing. DownloadError: the kernel can't be had. TargetError: the guest died.
        """
        machine = self._machine()
        machine.start()
        return machine

    def look(self) -> Engine:
        """Return the engine of a guest that comes up only if it is asked for what isn't known of its kernel.

        Raises:
            UnsupportedError, DownloadError, TargetError: as `open`, when it comes to that.
        """
        return self._machine()

    def _machine(self) -> Guest:
        from kprobes.engines.vm.kernels import DEFAULT_KERNEL
        from kprobes.engines.vm.machine import open_machine

        return open_machine(
            self.kernel or DEFAULT_KERNEL,
            arch=self.arch,
            cpus=self.cpus,
            memory_mb=self.memory_mb,
            progress=self.progress,
        )


def process(pid: int = 0, argv: Sequence[str] = (), *, exact_faults: bool = False) -> Target:
    """Return the target that is the running process *pid*, or the program *argv* to be started; see `Process`."""
    from kprobes.engines.process.target import Process

    return Process.spawn(list(argv), exact_faults=exact_faults) if argv else Process(pid, exact_faults=exact_faults)
