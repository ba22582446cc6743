"""The port: what every engine offers to a session. The VM engine implements it by sending each call into the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kprobes.model.facts import Facts as Facts
    from kprobes.model.plan import LinkStats, Plan


class Attached(Protocol):
    """A plan that is in place. `detach` ends the probing, `close` frees the rest too; both are idempotent."""

    def poll(self, timeout_s: float) -> list[bytes]:
        """Return the ring records that are there, waiting up to *timeout_s* for the first; each without the ring's own
        header, beginning with the record header of `model.layout`."""

    def read_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return the (key, value) pairs of a map; an array map of one entry gives one pair with the key `b""`."""

    def take_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return what a map holds, and leave nothing of it: what handlers add meanwhile is either in what is returned
        or still there. Aggregates that only grow and are not `windowed` can't be taken: compare with what they were.
        """

    def read_stack(self, stack_id: int) -> tuple[int, ...]:
        """Return the addresses of a stack, innermost first; empty where it is gone."""

    def link_stats(self) -> list[LinkStats]:
        """Return what the kernel counted per link."""

    def unmatched(self) -> dict[int, int]:
        """Return by the number of a site how many calls were entered there and haven't returned, as far as it is known;
        those of many sites together stand at the first of them. Final after `detach`."""

    def detach(self) -> None:
        """Detach every probe; no handler runs after it returns. Ring, maps and link counts stay readable: this is how
        final counts are read that add up."""

    def close(self) -> None:
        """Detach, and free ring and maps."""


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
