"""The events of a session as they come out of its rings: one by one, or as tables."""

from __future__ import annotations

from kprobes.events.decode import Decoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kprobes.engines.port import Attached
    from kprobes.events.record import Event
    from kprobes.events.recording import Recorder
    from kprobes.model.plan import Plan

# The shorter the sooner Ctrl-C, -n and a workload's end are seen; each poll wakes up at the first record anyway.
POLL_S = 0.1


class Stream:
    """Decodes what the links of a plan send. What belongs to a recording goes to *recorder*."""

    def __init__(self, plan: Plan, attached: Attached, recorder: Recorder | None) -> None:
        self._attached = attached
        self._recorder = recorder
        self._decoder = Decoder(plan.events, [site.name for site in plan.sites])

    def poll(self, timeout_s: float, *, ended: bool) -> list[Event]:
        """Return the events that are there, waiting up to *timeout_s* for the first. *ended*: no more are sent."""
        events = self._decoded(timeout_s)
        if self._recorder is None:
            return events
        others = self._recorder.take(events)
        while events and not others and ended:  # no event doesn't mean that nothing more is there
            events = self._decoded(0)
            others = self._recorder.take(events)
        return others

    def _decoded(self, timeout_s: float) -> list[Event]:
        spans = self._spans(timeout_s)
        if spans is None:
            return self._decoder.decode(self._attached.poll(timeout_s))
        events: list[Event] = []
        for span in spans:
            events += self._decoder.decode_raw(span)
        return events

    def _spans(self, timeout_s: float) -> list[bytes] | None:
        """Return what is there as it lies in the rings; None where the engine can't tell."""
        poll_raw = getattr(self._attached, "poll_raw", None)
        if poll_raw is None:
            return None
        found = poll_raw(timeout_s)
        return found if isinstance(found, list) else [found.data]

    def tables(self, timeout_s: float, *, text: bool) -> list[Any]:
        """Return the events that are there as Arrow tables, as `Session.tables` has it."""
        drain = getattr(self._attached, "drain", None)
        if drain is not None:
            maker = self._decoder.tables(text=text)
            return [table for table in drain(timeout_s, maker.of_span) if table.num_rows]
        spans = self._spans(timeout_s)
        if spans is None:
            records = self._attached.poll(timeout_s)
            return [self._decoder.to_arrow(records, text=text)] if records else []
        return [self._decoder.to_arrow_raw(span, text=text) for span in spans if span]
