"""The port through which names and types of a target are found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.model.features import Features


class Facts(Protocol):
    """Where the symbols of a target are. Files are local, whole, and may be cached copies of a guest's."""

    @property
    def features(self) -> Features:
        """Return the answers of the feature probes."""

    def stamp(self) -> str:
        """Return a text that changes whenever addresses or modules may have changed: plans are cached under it."""

    def kallsyms(self) -> str:
        """Return the path of a kallsyms file with addresses (`/proc/kallsyms` or a copy)."""

    def btf(self, module: str = "") -> str | None:
        """Return the path of the raw BTF of vmlinux or of *module*, or None."""

    def modules(self) -> Sequence[str]:
        """Return the names of the loaded modules that have BTF."""

    def text(self, what: str) -> str | None:
        """Return a text of the target: `blacklist` (kprobes), `functions` (available_filter_functions), `events`
        (the names of all tracepoints), `version` (/proc/version), `cgroups` (id and path a line), `kprobes` (what is
        armed now: kprobes/list), `kprobes_enabled` (0 where all are disarmed), or `format:CATEGORY/NAME` (a
        tracepoint's format file).

        None where there is none.
        """

    def memory(self, address: int, size: int) -> bytes | None:
        """Return *size* bytes of the target's kernel at *address*, as they are now; None where they can't be read."""
