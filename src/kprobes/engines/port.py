"""The port: what every engine offers to a session. The VM engine implements it by sending each call into the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.model.features import Features
    from kprobes.model.plan import LinkStats, Plan


class Attached(Protocol):
    """A plan that is in place. `detach` ends the probing, `close` frees the rest too; both are idempotent."""

    def poll(self, timeout_s: float) -> list[bytes]:
        """Return the ring records that are there, waiting up to *timeout_s* for the first; each without the ring's own
        header, beginning with the record header of `model.layout`."""

    def read_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return the (key, value) pairs of a map; an array map of one entry gives one pair with the key `b""`."""

    def read_stack(self, stack_id: int) -> tuple[int, ...]:
        """Return the addresses of a stack, innermost first; empty where it is gone."""

    def link_stats(self) -> list[LinkStats]:
        """Return what the kernel counted per link."""

    def detach(self) -> None:
        """Detach every probe; no handler runs after it returns. Ring, maps and link counts stay readable: this is how
        final counts are read that add up."""

    def close(self) -> None:
        """Detach, and free ring and maps."""


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
        (the names of all tracepoints), or `format:CATEGORY/NAME` (a tracepoint's format file); None where there is none."""


class Engine(Protocol):
    """Carries out plans on one target; a context manager."""

    def facts(self) -> Facts:
        """Return where the target's symbols are, with its features."""

    def attach(self, plan: Plan) -> Attached:
        """Carry out *plan*, all or nothing.

        Raises:
            PrivilegeError, UnsupportedError, UnprobeableError, VerifierError, SyscallError: with what was being done.
        """

    def close(self) -> None:
        """Let go of the target."""
