"""The kernel engine: carries out plans in the kernel that this process runs on."""

from __future__ import annotations

from kprobes.engines.kernel.attach import Kernel
from kprobes.engines.kernel.attached import KernelAttached
from kprobes.engines.kernel.btf import KernelBtf
from kprobes.engines.kernel.facts import KernelFacts
from kprobes.engines.kernel.files import KernelFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.kernel.traced import TracedAttached
    from kprobes.engines.kernel.tracefs import Tracefs
    from kprobes.model.plan import Plan


class KernelEngine:
    """Probes the running kernel, and files through its uprobes; a context manager.

    After a SIGKILL nothing remains: everything is held by descriptors of this process, and what a plan has in tracefs
    is taken away by a shell that outlives it.
    """

    def __init__(self) -> None:
        self._kernel = Kernel(KernelFiles(), KernelBtf())
        self._facts = KernelFacts(self._kernel.files)
        self._open = True

    def __enter__(self) -> KernelEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_alive(self) -> bool:
        """Return whether the target is there: our own kernel is, until we let go of it."""
        return self._open

    def facts(self) -> KernelFacts:
        """Return where the kernel's symbols are, with its features."""
        return self._facts

    def tracefs(self) -> Tracefs:
        """Return the kernel's own files about tracing."""
        from kprobes.engines.kernel.tracefs import Tracefs

        return Tracefs(self._kernel.files)

    def attach(self, plan: Plan) -> KernelAttached | TracedAttached:
        """Carry out *plan*, all or nothing.

        Raises:
            PrivilegeError, UnsupportedError, UnprobeableError, VerifierError, SyscallError: with what was being done.
        """
        if plan.traced:
            from kprobes.engines.kernel.traced import TracedAttached

            return TracedAttached(plan, self._kernel.files)
        return KernelAttached(plan, self._kernel)

    def detach_all(self, attached: Sequence[KernelAttached | TracedAttached]) -> None:
        """Detach several plans side by side: for each link the kernel waits until no CPU is in a handler.

        Raises:
            KprobesError: one can't be; the others are.
        """
        from kprobes.engines.kernel.together import together

        together([one.detach for one in attached])

    def close(self) -> None:
        """Let go of the kernel; what is attached stays so until it is closed itself."""
        self._open = False
        self._kernel.btf.close()
        self._kernel.files.close()
