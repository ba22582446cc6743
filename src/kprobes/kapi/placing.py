"""How registered probes are carried out: in a kernel a session each, in a process one session for all of them.

A process has one plan at a time. Where probes come to it, another plan takes its place, without a gap; what was counted
and gathered goes on.
"""

from __future__ import annotations

from kprobes.errors import TargetError
from kprobes.frozen import replace
from kprobes.kapi.objects import Kretprobe
from kprobes.kapi.places import KernelPlaces, ProcessPlaces
from kprobes.model.listed import State
from kprobes.model.plan import RETURN_WAYS
from kprobes.session import Session, attach_to, renew, within_of
from kprobes.session.selection import sites_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from kprobes.engines.port import Engine
    from kprobes.kapi.registration import Registration
    from kprobes.model.listed import Listed
    from kprobes.model.probe import Probe
    from kprobes.session import ProbeStats

    Ended = Callable[[Session], None]


class Shared:
    """An engine that several sessions use: closing one of them leaves it open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def close(self) -> None:
        """Leave the engine open."""


class InKernel:
    """The registered probes of one kernel, each with a session of its own. *ended* is told of a session that ends."""

    def __init__(self, engine: Engine, ended: Ended) -> None:
        self.places = KernelPlaces(engine)
        self._engine = engine
        self._shared: Any = Shared(engine)
        self._ended = ended
        self._sessions: dict[Registration, Session] = {}

    @property
    def sessions(self) -> list[Session]:
        """Return the sessions that are there."""
        return list(self._sessions.values())

    def add(self, ones: Sequence[Registration]) -> None:
        """Put *ones* in place, in order; those that are not to run are only tried.

        Raises:
            KprobesError: one can't be; those before it are taken away again.
        """
        done: list[Registration] = []
        try:
            for one in ones:
                if one.wants_to_run:
                    self._attach(one)
                else:
                    self._try(one)
                done.append(one)
        except BaseException:
            self.remove(reversed(done))
            raise

    def _attach(self, one: Registration) -> None:
        self._sessions[one] = attach_to(self._shared, *one.probes)
        one.is_in_place = True

    def _try(self, one: Registration) -> None:
        """Compile the handlers of *one*, and see whether the kernel takes a probe there that does nothing."""
        from kprobes.planner.cache import cached_plan

        cached_plan(one.probes, self._engine.facts())
        places = tuple(replace(probe, handler=None) for probe in one.probes)
        attach_to(self._shared, *places).close()

    def remove(self, ones: Iterable[Registration]) -> None:
        """Take *ones* away; no handler of theirs runs afterwards."""
        ending = [(one, session) for one in ones if (session := self._sessions.get(one)) is not None]
        Session.detach_all([session for _, session in ending])
        for one, session in ending:
            del self._sessions[one]
            one.is_in_place = False
            one.note(_told(session, one))
            self._ended(session)

    def set_running(self, ones: Iterable[Registration]) -> None:
        """Have each of *ones* run, or rest, as it wants to."""
        for one in ones:
            session = self._sessions.get(one)
            if session is None:
                if one.wants_to_run:
                    self._attach(one)
            elif one.wants_to_run:
                session.enable()
            else:
                session.disable()

    def session_of(self, one: Registration) -> Session | None:
        """Return the session that carries *one* out."""
        return self._sessions.get(one)

    def stats_of(self, one: Registration) -> list[ProbeStats]:
        """Return what is counted at the places of *one* now."""
        session = self._sessions.get(one)
        return _told(session, one) if session is not None else []

    def address_of(self, one: Registration) -> int:
        """Return the address of *one*."""
        return self.places.address(one.probes[0].places[0])

    def is_entry(self, one: Registration) -> bool:
        """Tell whether *one* sits where a function is entered."""
        return self.places.is_entry(one.probes[0].places[0])

    def state_of(self, one: Registration) -> frozenset[str]:
        """Return the words about *one* in the kernel's list."""
        return self.places.state(self.address_of(one))


class InProcess:
    """The registered probes of one process, in one session. *ended* is told of a session that ends."""

    def __init__(self, engine: Engine, ended: Ended) -> None:
        self._engine = engine
        self._shared: Any = Shared(engine)
        self._ended = ended
        self._within = within_of(engine)
        self.places = ProcessPlaces(self._within.pid)
        self._ones: list[Registration] = []
        self._session: Session | None = None

    @property
    def sessions(self) -> list[Session]:
        """Return the session, if there is one."""
        return [self._session] if self._session is not None else []

    def add(self, ones: Sequence[Registration]) -> None:
        """Put *ones* in place, behind those that are there; where none is to run they are only looked at.

        Raises:
            KprobesError: one can't be; nothing has changed then.
        """
        if self._session is None:
            for one in ones:
                if not one.wants_to_run:
                    self._try(one)
        if self._session is not None or any(one.wants_to_run for one in ones):
            self._renew([*self._ones, *ones])
        else:
            self._ones += ones

    def _try(self, one: Registration) -> None:
        from kprobes.engines.process.preview import preview
        from kprobes.planner.cache import cached_process_plan

        preview(self._within.pid, cached_process_plan(one.probes, self._within))

    def _renew(self, ones: list[Registration]) -> None:
        """Carry out *ones*, those that are in place already without a gap."""
        placed = [one for one in ones if one.wants_to_run or self._session is not None]
        probes = [probe for one in placed for probe in one.probes]
        if self._session is not None:
            resting = [probe for one in placed if not one.wants_to_run for probe in one.probes]
            renew(self._session, *probes, resting=resting, within=self._within)
        else:
            self._session = attach_to(self._shared, *probes, within=self._within)
        for one in placed:
            one.is_in_place = True
        self._ones = ones

    def _end(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        session.detach()
        for one in self._ones:
            if one.is_in_place:
                one.note(self._counted(session, one))
                one.is_in_place = False
        self._ended(session)

    def remove(self, ones: Iterable[Registration]) -> None:
        """Take *ones* away; no handler of theirs runs afterwards."""
        going = list(ones)
        for one in going:
            one.is_disabled = True
        try:
            self.set_running(going)
        except TargetError:
            if getattr(self._engine, "is_alive", True):
                raise  # else it has no probes any more
        for one in going:
            if one.is_in_place and self._session is not None:
                one.note(self._counted(self._session, one))
                one.is_in_place = False
        self._ones = [one for one in self._ones if one not in going]
        if not any(one.is_in_place for one in self._ones):
            self._end()

    def set_running(self, ones: Iterable[Registration]) -> None:
        """Have each of *ones* run, or rest, as it wants to."""
        changing = [one for one in ones if one in self._ones]
        there = [one for one in changing if one.is_in_place]
        for wanted in (False, True):
            probes = [probe for one in there if one.wants_to_run == wanted for probe in one.probes]
            if probes and self._session is not None:
                (self._session.enable if wanted else self._session.disable)(*probes)
        if any(one.wants_to_run and not one.is_in_place for one in changing):
            self._renew(self._ones)

    def session_of(self, one: Registration) -> Session | None:
        """Return the session that carries *one* out."""
        return self._session if one.is_in_place else None

    def stats_of(self, one: Registration) -> list[ProbeStats]:
        """Return what is counted at the places of *one* now."""
        return self._counted(self._session, one) if self._session is not None and one.is_in_place else []

    @staticmethod
    def _counted(session: Session, one: Registration) -> list[ProbeStats]:
        stats = session.stats
        return [stats[number] for number in sorted(_numbers(session, one.probes))]

    def address_of(self, one: Registration) -> int:
        """Return the address of *one*."""
        return next((row.address for row in self._rows(one)), 0) or self.places.address(one.probes[0].places[0])

    def is_entry(self, one: Registration) -> bool:
        """Tell whether *one* sits where a function is entered."""
        return self.places.is_entry(one.probes[0].places[0])

    def state_of(self, one: Registration) -> frozenset[str]:
        """Return the words about *one* in the list of the process."""
        return frozenset(word for row in self._rows(one) for word in row.flags if word != State.DISABLED)

    def _rows(self, one: Registration) -> list[Listed]:
        session = self.session_of(one)
        if session is None:
            return []
        sites = [session.plan.sites[number] for number in _numbers(session, one.probes)]
        names = {f"{site.symbol}+{site.offset:#x}" if site.symbol else site.name for site in sites}
        return [row for row in session.listing if row.name in names]


def _told(session: Session, one: Registration) -> list[ProbeStats]:
    """Return the counts of a session of its own. Of a return probe's misses only those of the return count, which
    kernels may tell where they don't tell those of the entry."""
    stats = session.stats
    if not isinstance(one.thing, Kretprobe) or not stats or stats[0].missed is not None:
        return stats
    told = [link.missed for link in session.link_stats if link.way in RETURN_WAYS]
    return [replace(stats[0], missed=sum(told)), *stats[1:]] if told and min(told) >= 0 else stats


def _numbers(session: Session, probes: Sequence[Probe]) -> frozenset[int]:
    return sites_of(session.plan, session.asked, probes)
