"""A module: registered probes of one target, and the lines that their handlers print.

As a kernel module's code registers probes when it is loaded and unregisters them when it goes, so here:

    with Module(Machine("6.12")) as module:
        register_kprobe(kp)
        for line in module.kmsg(): ...
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from threading import RLock

from kprobes.engines.targets import Kernel
from kprobes.errors import HandlerWarning, KprobesError, RegistrationError
from kprobes.frozen import dataclass
from kprobes.interrupts import uninterrupted
from kprobes.kapi.handlers import probes_of
from kprobes.kapi.objects import KPROBE_FLAG_DISABLED, KPROBE_FLAG_GONE, check_members
from kprobes.kapi.placing import InKernel, InProcess
from kprobes.kapi.refusal import told_as_errno
from kprobes.kapi.registration import Registration
from kprobes.session import warn_of
from kprobes.session.lookup import looking_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

    from kprobes.engines.port import Engine
    from kprobes.engines.targets import Target
    from kprobes.events.record import Event
    from kprobes.kapi.objects import Registrable
    from kprobes.model.caution import Caution
    from kprobes.session import ProbeStats, Session

# Messages that are kept until they are read; the oldest go first and are counted.
KEPT = 100_000
POLL_S = 0.1
# What is there when the time is over is read to its end, unless reading it makes more: of a probe of `write`, say.
LATE_S = 1.0
_STACK_EVENT = "dump_stack"


@dataclass(frozen=True, slots=True)
class Message:
    """What a handler sent: the *event*, and the *lines* that it is printed as. A remark of ours has no event."""

    event: Event | None
    lines: tuple[str, ...]


class Module:
    """Probes registered with one target; a context manager, whose end unregisters them all.

    Inside of `with` the functions `register_kprobe` and so on mean it. *to* is the target, by default this machine's
    kernel, or an engine that is open already and stays so.

    Raises:
        KprobesError: the target can't be opened.
    """

    def __init__(self, to: Target | Engine | None = None) -> None:
        wanted: Any = to or Kernel()
        self._owned = hasattr(wanted, "open")
        self.engine: Engine = wanted.open() if self._owned else wanted
        self.dropped = 0
        self._lost = self._told_lost = 0
        self.closes_when_empty = False
        self._lock = RLock()  # one thread may read while another one registers
        self._messages: deque[Message] = deque()
        self._registered: list[Registration] = []
        self._warned: set[Caution] = set()
        self._enabled = True
        self._closed = False
        self._inside = ExitStack()
        native = bool(getattr(self.engine, "is_native", False))
        self._placing: InKernel | InProcess = (InProcess if native else InKernel)(self.engine, self._drain)

    def __enter__(self) -> Self:
        self._inside.enter_context(looking_up(self.kallsyms_lookup_name))
        self._inside.callback(_current.reset, _current.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._inside.close()
        self.close()

    def close(self) -> None:
        """Unregister all probes and let go of the target; what was printed can still be read. Idempotent."""
        with uninterrupted(), self._lock:  # a thread that reads gets what comes to the very end
            if self._closed:
                return
            self._closed = True
            try:
                self.unregister(*(one.thing for one in self._registered))
            finally:
                if self._owned:
                    self.engine.close()

    # Registering.

    def register(self, *things: Registrable) -> None:
        """Register *things*, in order, of any kind. If one is refused, those before it are unregistered.

        Raises:
            RegistrationError: an errno with its name.
            CompileError: a handler is outside the language.
        """
        if not things:
            raise RegistrationError("there is nothing to register", "EINVAL", hint="give at least one probe")
        with uninterrupted(), self._lock:
            self._refuse_again(things)
            with told_as_errno(f"registering {', '.join(map(str, things))}"):
                ones = [self._registration(thing) for thing in things]
                self._placing.add(ones)
            for one in ones:
                one.thing.kp.registration = one
            self._registered += ones
        self._warn(things)

    def _refuse_again(self, things: tuple[Registrable, ...]) -> None:
        """Refuse what is registered already, or with a module that is closed."""
        if self._closed:
            raise RegistrationError("the module is closed", "EINVAL", hint="register inside of its `with`")
        for number, thing in enumerate(things):
            check_members(thing)
            if thing.kp.registration is not None or any(thing.kp is other.kp for other in things[:number]):
                hint = "unregister it first, or make another object"
                raise RegistrationError(f"{thing} is registered already", "EINVAL", hint=hint)

    def _warn(self, things: tuple[Registrable, ...]) -> None:
        """Tell once of what is probably not meant in handlers; where Python makes an error of it, nothing stays."""
        found = [one for session in self.sessions for one in session.warnings if one not in self._warned]
        self._warned.update(found)
        try:
            warn_of(dict.fromkeys(found))
        except HandlerWarning:
            self.unregister(*things)
            raise

    def _registration(self, thing: Registrable) -> Registration:
        spot = self._placing.places.spot(thing)
        disabled = bool(thing.kp.flags & KPROBE_FLAG_DISABLED)
        return Registration(self, thing, probes_of(thing, spot), is_disabled=disabled)

    def unregister(self, *things: Registrable) -> None:
        """Unregister *things*; no handler of theirs runs afterwards. Those that aren't registered are left alone."""
        with uninterrupted(), self._lock:
            ones = [one for one in self._registered if any(one.thing is thing for thing in things)]
            self._placing.remove(reversed(ones))
            self._registered = [one for one in self._registered if one not in ones]
            for one in ones:
                one.thing.kp.registration = None
        if self.closes_when_empty and not self._registered:
            self.close()

    def set_disabled(self, thing: Registrable, disabled: bool) -> None:
        """Let *thing* rest, or go on.

        Raises:
            RegistrationError: EINVAL: it isn't registered with this module, or what it probed has gone.
        """
        with uninterrupted(), self._lock:  # another thread may be about to unregister it
            one = thing.kp.registration
            if one is None or one.module is not self:
                raise RegistrationError(f"{thing} is not registered", "EINVAL", hint="register it first")
            if one.flags & KPROBE_FLAG_GONE:
                raise RegistrationError(f"what {thing} probed has gone", "EINVAL", hint="unregister it")
            if one.is_disabled == disabled:
                return
            one.is_disabled = disabled
            with told_as_errno(f"{'disabling' if disabled else 'enabling'} {thing}"):
                self._change([one], lambda: setattr(one, "is_disabled", not disabled))

    @property
    def enabled(self) -> bool:
        """Whether probes are armed at all: the kernel's `kprobes/enabled`. Each one's own state is another matter."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        with uninterrupted(), self._lock:
            if value == self._enabled:
                return
            self._enabled = value
            with told_as_errno("arming all probes" if value else "disarming all probes"):
                self._change(self._registered, lambda: setattr(self, "_enabled", not value))

    def _change(self, ones: list[Registration], undo: Any) -> None:
        try:
            self._placing.set_running(ones)
        except BaseException:
            undo()
            with suppress(KprobesError):
                self._placing.set_running(ones)  # those that have changed already
            raise

    # What is known of a registered probe.

    def kallsyms_lookup_name(self, name: str) -> int:
        """Return the address of the symbol *name* of the target: of the kernel's code, or a function of the process.

        Raises:
            SymbolNotFoundError, AmbiguousSymbolError: with the nearest names, or the candidates.
        """
        return self._placing.places.lookup(name)

    @property
    def is_alive(self) -> bool:
        """Tell whether the target is still there."""
        return bool(getattr(self.engine, "is_alive", True))

    @property
    def sessions(self) -> list[Session]:
        """Return the sessions that carry out what is registered now."""
        return self._placing.sessions

    def session_of(self, thing: Registrable) -> Session | None:
        """Return the session that carries *thing* out now, whose maps and counts can be read."""
        one = thing.kp.registration
        return self._placing.session_of(one) if one is not None else None

    def stats_of(self, one: Registration) -> list[ProbeStats]:
        """Return what is counted at the places of *one* now."""
        return self._placing.stats_of(one)

    def address_of(self, one: Registration) -> int:
        """Return the address of *one*, 0 where it isn't known."""
        return self._placing.address_of(one)

    def is_entry(self, one: Registration) -> bool:
        """Tell whether *one* sits where a function is entered."""
        return self._placing.is_entry(one)

    def state_of(self, one: Registration) -> frozenset[str]:
        """Return OPTIMIZED, FTRACE, GONE: what the target says of *one*."""
        return self._placing.state_of(one)

    # Reading.

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        """Yield what handlers sent, as it comes, for *timeout_s* seconds, or until the module is closed or the probed
        process has ended."""
        for message in self._read(timeout_s):
            if message.event is not None:
                yield message.event

    def kmsg(self, timeout_s: float | None = None) -> Iterator[str]:
        """Yield the lines that handlers print, as it comes; ends as `events`."""
        for message in self._read(timeout_s):
            yield from message.lines

    def _read(self, timeout_s: float | None) -> Iterator[Message]:
        end, late_s = None if timeout_s is None else time.monotonic() + timeout_s, -1.0
        while True:
            begin = time.monotonic()
            left = POLL_S if end is None else max(0.0, min(POLL_S, end - begin))
            with self._lock:
                lives = not self._closed and self.is_alive
            if not self._messages and not self._closed:
                self._poll(left)
            if end is not None and begin >= end:
                late_s = 0.0 if late_s < 0 else late_s + time.monotonic() - begin  # see `Session.events`
            found = False
            while self._messages:
                yield self._messages.popleft()
                found = True
            over = not lives or (end is not None and time.monotonic() >= end)
            if (over and not found) or late_s >= LATE_S:
                yield from self._remarks()
                return

    @property
    def lost(self) -> int:
        """Return how many messages found no room, or were never read."""
        there = 0 if self._closed else sum(one.lost for session in self.sessions for one in session.stats)
        return self._lost + there + self.dropped

    def _remarks(self) -> Iterator[Message]:
        """Yield what the kernel says in its own log where messages are lost."""
        lost = self.lost
        if lost > self._told_lost:
            yield Message(None, (f"** {lost - self._told_lost} printk messages dropped **",))
            self._told_lost = lost

    def _poll(self, timeout_s: float) -> None:
        sessions = self._placing.sessions
        for session in sessions:
            with self._lock:
                if session in self._placing.sessions:
                    self._keep(session, session.poll(timeout_s / len(sessions)))
        if not sessions:
            time.sleep(timeout_s)

    def _drain(self, session: Session) -> None:
        """Keep what a session that ends has still to say, and close it."""
        while batch := session.poll(0):
            self._keep(session, batch)
        self._lost += sum(one.lost for one in session.stats)
        session.close()

    def _keep(self, session: Session, batch: list[Event]) -> None:
        for event in batch:
            self._messages.append(Message(event, lines_of(session, event)))
        while len(self._messages) > KEPT:
            self._messages.popleft()
            self.dropped += 1


def lines_of(session: Session, event: Event) -> tuple[str, ...]:
    """Return what *event* is printed as: the line of `printk`, a stack as the kernel shows it."""
    if event.layout.name != _STACK_EVENT:
        return (event.text,)
    head = f"CPU: {event['cpu']} PID: {event['tid']} Comm: {event['comm']}"
    return (head, "Call Trace:", *(f" {frame}" for frame in session.stack(event["stack"])))


_current: ContextVar[Module | None] = ContextVar("kprobes_module", default=None)


def current() -> Module | None:
    """Return the module in whose `with` this runs."""
    return _current.get()
