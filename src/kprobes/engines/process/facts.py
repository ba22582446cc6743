"""Where the symbols of a process are: the files it maps, as it sees them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs
from kprobes.model.features import Features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.process.registry import Identity


class ProcessFacts:
    """The facts of the process *identity*."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    @property
    def pid(self) -> int:
        """Return the process's id."""
        return self._identity.pid

    @property
    def root(self) -> str:
        """Return the directory under which the process's files are found, for containers."""
        return f"/proc/{self.pid}/root"

    @property
    def features(self) -> Features:
        """Return what the process engine can do, in the words of the kernel's features."""
        return Features(
            key=self.stamp(),
            release=os.uname().release,
            cpus=os.cpu_count() or 1,
            kprobe=False,
            uprobe=True,
            kprobe_multi=False,
            fentry=False,
            ring_buffer=True,
            attach_cookie=True,
            perf_link=False,
        )

    def stamp(self) -> str:
        """Return a text that changes whenever the mapped files or their places do."""
        return ";".join(
            f"{one.start:x},{one.offset:x},{one.device},{one.inode}" for one in self.mappings() if one.executable
        )

    def mappings(self) -> list[procfs.Mapping]:
        """Return the process's mappings."""
        return procfs.read_maps(procfs.live_thread(self.pid))

    def kallsyms(self) -> str:
        """Return an empty file: a process has no symbols of a kernel."""
        return os.devnull

    def btf(self, module: str = "") -> str | None:  # noqa: ARG002
        """Return None: types of a process come from DWARF."""
        return None

    def modules(self) -> Sequence[str]:
        """Return nothing: see `mappings` for the objects."""
        return ()

    def text(self, what: str) -> str | None:  # noqa: ARG002
        """Return None: these are texts of a kernel."""
        return None

    def memory(self, address: int, size: int) -> bytes | None:  # noqa: ARG002
        """Return None: this is about a kernel."""
        return None
