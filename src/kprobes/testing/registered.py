"""`p` and `ri` of registered handlers in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kprobes.errors import UsageError
from kprobes.kapi.handlers import Spot, probes_of
from kprobes.model.ctype import Int
from kprobes.model.registered import Instance, Registered
from kprobes.model.structs import shape_of
from kprobes.testing.numbers import Shown, keep, u64
from kprobes.testing.values import of_type
from kprobes.testing.words import word_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.kapi.objects import Registrable
    from kprobes.model.probe import Probe
    from kprobes.testing.frame import Frame
    from kprobes.testing.world import World


def probe_for(thing: Registrable, frames: Sequence[Frame]) -> Probe:
    """Return the probe of *thing* that hits like *frames* are for: a fault has its signal.

    Raises:
        UsageError: *thing* has no such handler.
        CompileError, RegistrationError: it could not be registered.
    """
    on_fault = any(frame.words["fault_signal"] for frame in frames)
    for probe in probes_of(thing, Spot(thing.kp.place, native=True)):
        if probe.on_fault == on_fault and probe.handler is not None:
            return probe
    raise UsageError(f"{thing} has no handler for this", hint="a fault_handler needs Frame(..., fault_signal=11)")


def stand_in(world: World, thing: Registered | Instance) -> Any:
    """Return what a handler is given for *thing*."""
    return Probed(world, thing) if isinstance(thing, Registered) else Call(world, thing)


class Probed:
    """`p`."""

    def __init__(self, world: World, thing: Registered) -> None:
        self._world = world
        self.symbol_name = thing.symbol_name
        self.offset = thing.offset
        self.kp = self

    @property
    def addr(self) -> Any:
        """The address of the probe, which the frame gives as `function`."""
        return Shown(u64(self._world.word("function")))


class Call:
    """`ri`. Its data is that of the hit that runs."""

    def __init__(self, world: World, thing: Instance) -> None:
        self._world = world
        self._shape = thing.data
        self.rp = Probed(world, thing.rp)

    @property
    def data(self) -> CallData:
        """What is kept for the call."""
        return CallData(self._world, self._shape)

    @property
    def ret_addr(self) -> Any:
        """The return address, which lies on the stack."""
        content = self._world.memory(self._world.register("sp"), 8)
        return Shown(u64(int.from_bytes(content or b"", "little")))

    @property
    def task(self) -> Any:
        """The running thread: in a process its id."""
        return word_of(self._world, "tid")()


class CallData:
    """`ri.data`: fields are cut to the width that their struct class says."""

    def __init__(self, world: World, shape: object) -> None:
        object.__setattr__(self, "_world", world)
        object.__setattr__(self, "_shape", shape)

    def __getattr__(self, name: str) -> Any:
        return self._world.kept.get(name, u64(0))

    def __setattr__(self, name: str, value: Any) -> None:
        shape = shape_of(self._shape)
        kinds = {one.name: getattr(one.type, "type", None) for one in shape.members} if shape else {}
        if shape and name not in kinds:
            raise AttributeError(f"{shape.name} has no member {name!r}")
        kind = kinds.get(name)
        cut = of_type(self._world, int(value), kind, "user") if isinstance(kind, Int) else keep(value)
        self._world.kept[name] = cut
