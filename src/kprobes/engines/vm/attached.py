"""A plan in place in a guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.engines.kernel.ring import EMPTY, Span, span_of
from kprobes.engines.vm.frames import decode_records
from kprobes.errors import FormatError, TargetError
from kprobes.model import wire
from kprobes.model.plan import LinkStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.vm.channel import Channel

LONGEST_RECORD = 1 << 20


class GuestAttached:
    """A plan that is attached in a guest. Records are pushed as they come; `poll` takes what has come."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._number = number
        self._records = channel.stream(number)
        self._closed = False
        self._detached = False

    def poll(self, timeout_s: float) -> list[bytes]:
        """Return the ring records that are there, waiting up to *timeout_s* s for the first."""
        return self.poll_raw(timeout_s).records()

    def poll_raw(self, timeout_s: float) -> Span:
        """Return the same records as one span of bytes, for a decoder that takes thousands at a time.

        With a timeout of 0 the guest is asked whether its ring holds any, so that nothing that was recorded before is
        still under way.
        """
        message = self._records.take(timeout_s)
        if message is None and timeout_s <= 0 and not self._closed:
            self._channel.call("sync", link=self._number)
            message = self._records.take(0)
        return EMPTY if message is None else _span(*message)

    def wait(self, timeout_s: float) -> bool:
        """Wait for a record for up to *timeout_s* seconds; return whether one is there."""
        return self._records.wait(timeout_s)

    def read_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return the (key, value) pairs of a map."""
        return self._pairs("read_map", name)

    def take_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return the pairs of a map, and leave nothing of them."""
        return self._pairs("take_map", name)

    def _pairs(self, call: str, name: str) -> list[tuple[bytes, bytes]]:
        parts = decode_records(self._channel.call(call, link=self._number, name=name)[1])
        return list(zip(parts[::2], parts[1::2], strict=True))

    def read_stack(self, stack_id: int) -> tuple[int, ...]:
        """Return the addresses of a stack, innermost first; empty where it is gone."""
        addresses, _ = self._channel.call("read_stack", link=self._number, stack=stack_id)
        return (
            tuple(address for address in addresses if isinstance(address, int)) if isinstance(addresses, list) else ()
        )

    def link_stats(self) -> list[LinkStats]:
        """Return what the guest's kernel counted."""
        return wire.list_from_bytes(self._channel.call("link_stats", link=self._number)[1], LinkStats)

    def unmatched(self) -> dict[int, int]:
        """Return by site how many calls were entered and haven't returned.

        Raises:
            FormatError: the guest's message is malformed.
        """
        pairs, _ = self._channel.call("unmatched", link=self._number)
        if not isinstance(pairs, list) or not all(isinstance(one, list) and len(one) == 2 for one in pairs):
            raise FormatError("the guest sent no pairs of site and count")
        return {int(site): int(count) for site, count in pairs}

    def set_enabled(self, sites: frozenset[int], enabled: bool) -> None:
        """Let the probes at *sites* rest, or go on; raises as the kernel engine does."""
        self._channel.call("set_enabled", link=self._number, sites=sorted(sites), enabled=enabled)

    def detach(self) -> None:
        """Detach every probe; no handler runs after it returns. Ring, maps and counts stay readable."""
        detach_all([self])

    def close(self) -> None:
        """Detach every probe and let go of ring and maps; idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            self._channel.call("close_link", link=self._number)
        except TargetError:
            return  # a guest that is gone has no probes either


def detach_all(attached: Sequence[GuestAttached]) -> None:
    """Detach several plans in one guest at once."""
    left = [one for one in attached if not one._detached]
    if left:
        left[0]._channel.call("detach", links=[one._number for one in left])
    for one in left:
        one._detached = True


def _span(head: dict[str, object], blob: bytes) -> Span:
    """Return records as they lay in the ring: all of one length, or mixed.

    Raises:
        FormatError: the guest's message is malformed.
    """
    stride, length = head.get("stride"), head.get("length")
    if stride is None:
        return span_of(blob)
    if not isinstance(stride, int) or not isinstance(length, int):
        raise FormatError("the guest sent records without their length")
    if not 0 <= length <= LONGEST_RECORD or stride < length + 8 or len(blob) % stride:
        raise FormatError(f"the guest sent records of an impossible length: {length} in {stride} bytes")
    return Span(blob, stride, length)
