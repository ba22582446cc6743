"""One registered probe: what it was made of, where it is, and what has been counted."""

from __future__ import annotations

from kprobes.errors import RegistrationError
from kprobes.kapi.objects import (
    KPROBE_FLAG_DISABLED,
    KPROBE_FLAG_FTRACE,
    KPROBE_FLAG_GONE,
    KPROBE_FLAG_ON_FUNC_ENTRY,
    KPROBE_FLAG_OPTIMIZED,
)
from kprobes.model.listed import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.kapi.module import Module
    from kprobes.kapi.objects import Registrable
    from kprobes.model.probe import Probe
    from kprobes.session import ProbeStats

_FLAGS = {"OPTIMIZED": KPROBE_FLAG_OPTIMIZED, "FTRACE": KPROBE_FLAG_FTRACE, State.GONE: KPROBE_FLAG_GONE}


class Registration:
    """A probe *thing* that is registered with a *module*, and the *probes* that carry it out.

    *is_disabled* is its own state; whether it is armed depends on the module besides. *is_in_place*: its probes are
    attached. The counts are those of the probes that were taken away before, which the module adds the present ones to.
    """

    def __init__(self, module: Module, thing: Registrable, probes: Sequence[Probe], *, is_disabled: bool) -> None:
        self.module = module
        self.thing = thing
        self.probes = tuple(probes)
        self.is_disabled = is_disabled
        self.is_in_place = False
        self.counted_hits = 0
        self.counted_missed: int | None = 0
        self._addr = 0

    @property
    def wants_to_run(self) -> bool:
        """Tell whether it is to be armed."""
        return self.module.enabled and not self.is_disabled

    def note(self, stats: Sequence[ProbeStats]) -> None:
        """Add what was counted of its first place: *stats* are those of a session that ends now."""
        self.counted_hits, self.counted_missed = self._sum(stats)

    def _sum(self, stats: Sequence[ProbeStats]) -> tuple[int, int | None]:
        hits = self.counted_hits + sum(one.hits for one in stats[:1])
        untold = self.counted_missed is None or any(one.missed is None for one in stats[:1])
        # A call whose return can't come any more is one that was missed.
        lost = sum((one.missed or 0) + (one.unmatched if one.kind in _RETURNS else 0) for one in stats[:1])
        return hits, None if untold else (self.counted_missed or 0) + lost

    @property
    def addr(self) -> int:
        """Return the address of the probe, 0 where it is not known."""
        if not self._addr:
            self._addr = self.module.address_of(self)
        return self._addr

    @property
    def flags(self) -> int:
        """Return the flags `KPROBE_FLAG_*`."""
        found = KPROBE_FLAG_DISABLED if self.is_disabled else 0
        if not self.module.is_alive:
            return found | KPROBE_FLAG_GONE
        if self.module.is_entry(self):
            found |= KPROBE_FLAG_ON_FUNC_ENTRY
        for word in self.module.state_of(self):
            found |= _FLAGS.get(word, 0)
        return found

    @property
    def hits(self) -> int:
        """Return how often the probe was hit."""
        return self._sum(self.module.stats_of(self))[0]

    @property
    def nmissed(self) -> int:
        """Return how often the probe was hit while no handler could run.

        Raises:
            RegistrationError: EOPNOTSUPP: this kernel doesn't tell.
        """
        missed = self._sum(self.module.stats_of(self))[1]
        if missed is None:
            hint = "kernels since 6.7 do; of return probes register fewer"
            raise RegistrationError(f"this kernel doesn't tell what {self.thing} has missed", "EOPNOTSUPP", hint=hint)
        return missed


_RETURNS = frozenset({"kretprobe", "uretprobe"})
