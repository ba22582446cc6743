"""A guest for benchmarks: runs programs in it, with their output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.engines.vm.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Sequence

# bpftrace and what it loads take 200 MB of the guest's memory.
MEMORY_MB = 1024
BPFTRACE = "/usr/bin/bpftrace"
LIMIT_S = 600


class Guest:
    """A machine of our own with *kernel*; a context manager."""

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        self.machine = Machine(kernel, memory_mb=MEMORY_MB)

    def __enter__(self) -> Guest:
        self.machine.start()
        self.machine.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.close()

    def run(self, words: Sequence[str], copy: Sequence[str] = (), environment: dict[str, str] | None = None) -> str:
        """Return what a command in the guest writes to its standard output.

        Raises:
            RuntimeError: it fails.
        """
        command = self.machine.run(list(words), copy=list(copy), environment=environment)
        status = command.wait(LIMIT_S)
        if status:
            raise RuntimeError(f"{words[0]} in the guest: status {status}: {command.error_output.decode()[-500:]}")
        return command.output.decode("utf-8", "replace")
