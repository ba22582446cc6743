"""`run`: a handler on frames, in plain Python."""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any

from kprobes.compiler.front.source import source_of
from kprobes.errors import UsageError
from kprobes.events.aggregate import read_map
from kprobes.kapi.objects import Registrable
from kprobes.model.probe import RETURN_KINDS, HandlerSource, Probe
from kprobes.model.registered import Instance, Registered
from kprobes.model.setting import Setting
from kprobes.testing.everything import Everything
from kprobes.testing.maps import Simulated, simulated
from kprobes.testing.numbers import RUNNING
from kprobes.testing.registered import probe_for, stand_in
from kprobes.testing.rewrite import Rewritten, rewritten
from kprobes.testing.words import word_of
from kprobes.testing.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from kprobes.model.mapspec import MapSpec
    from kprobes.testing.frame import Frame
    from kprobes.testing.world import Sent

USER_KINDS = frozenset({"uprobe", "uretprobe"})


class Result:
    """What came of it: `events`, the maps (`result[opens]`), `faults` and `written`, what the probed program lost.

    *faults* counts the halves of handlers in which something failed, as a session does. *written* are (what, register,
    value) of `regs.x = ...`, `skip()` and `return_from_function()`.
    """

    def __init__(self, world: World, maps: dict[str, Simulated]) -> None:
        self.events: list[Sent] = world.events
        self.faults = world.faults
        self.written = world.written
        self.maps = maps

    def __getitem__(self, spec: MapSpec) -> Any:
        """Return what a map holds, as `session[map]` does."""
        found = self.maps.get(spec.name) or simulated(spec)
        return read_map(found.pairs(), found.layout)

    @property
    def lines(self) -> list[str]:
        """The lines that `log` sent."""
        return [event.line for event in self.events if event.line]


def run(handler: Probe | Registrable | Callable[..., object], *frames: Frame) -> Result:
    """Run *handler* (a probe, or a function not yet decorated) in CPython on each of *frames*, in order.

    Of a `Kprobe`, `Kretprobe` or `Jprobe` its handlers run as in a process; the fault handler where a frame has a
    `fault_signal`.

    A handler with a `yield` runs to it, and then, with the result and the registers of the return, on from it.

    Raises:
        UsageError: a frame lacks what the handler asks for.
        CompileError: the handler is no function written in a file.
        Exception: what the handler's own lines raise.
    """
    if isinstance(handler, Registrable):
        handler = probe_for(handler, frames)
    source, kind = _source_of(handler)
    maps: dict[str, Simulated] = {}
    world = World(source.name, user=kind in USER_KINDS)
    made: dict[object, Rewritten] = {}

    def enumerator(name: str) -> int | None:
        types = frames[0].types if frames else None
        return types.enumerator(name) if types else None

    given = dict(handler.settings) if isinstance(handler, Probe) else {}

    def adapt(thing: object) -> Any:
        if isinstance(thing, str):
            return word_of(world, thing)
        if isinstance(thing, Setting):
            return given.get(thing.name, thing.default)
        if isinstance(thing, Registered | Instance):
            return stand_in(world, thing)
        if isinstance(thing, FunctionType):
            return lambda *values, **named: helper(thing)(*values, **named)
        assert hasattr(thing, "name")
        return maps.setdefault(thing.name, simulated(thing, world))  # type: ignore[arg-type]

    def helper(function: FunctionType) -> Callable[..., Any]:
        if function not in made:
            made[function] = rewritten(source_of(function), adapt, enumerator, called=True)
        return made[function].function

    body = rewritten(source, adapt, enumerator)
    for frame in frames:
        world.frame = frame
        _Hit(world, body, returns=kind in RETURN_KINDS).run()
    return Result(world, maps)


def _source_of(handler: Probe | Callable[..., object]) -> tuple[HandlerSource, str]:
    if not isinstance(handler, Probe):
        return source_of(handler), "kprobe"
    if not isinstance(handler.handler, HandlerSource):
        raise UsageError("this probe has no handler to run", hint="decorate a function")
    return handler.handler, handler.kind


class _Hit:
    """One hit: the handler to its `yield`, and behind it."""

    def __init__(self, world: World, body: Rewritten, *, returns: bool) -> None:
        self.world = world
        self.body = body
        self.returns = returns

    def run(self) -> None:
        """Run both halves, each with a fault flag of its own."""
        world = self.world
        world.kept = {}
        world.exit_part = self.returns and not self.body.is_split
        if not self.body.is_split:
            self._half(self._call)
            return
        running = self._call()
        if self._half(lambda: next(running, self)) is self:
            return  # it left before the yield
        world.exit_part = True
        self._half(lambda: self._go_on(running))

    def _go_on(self, running: Generator[object, object, object]) -> None:
        try:
            running.send(self.world.result() if self.returns else None)
        except StopIteration:
            return
        raise UsageError("a handler has one yield")

    def _half(self, step: Callable[[], Any]) -> Any:
        token = RUNNING.set(self.world)
        self.world.fault = False
        try:
            return step()
        finally:
            RUNNING.reset(token)
            self.world.faults += self.world.fault

    def _call(self) -> Any:
        return self.body.function(**{name: self._argument(name) for name in self.body.parameters})

    def _argument(self, name: str) -> Any:
        return Everything(self.world) if name == self.body.everything else self.world.argument_named(name)
