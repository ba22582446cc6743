"""Names for the numbers that a target gives, each looked up when it is first asked for: addresses, stacks, cgroups."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from kprobes.engines.port import Engine
    from kprobes.model.layout import MapLayout
    from kprobes.symbols.frames import KernelFrames, UserFrames

REMEMBER_S = 0.5  # how often the mappings of a process are looked at for the names of its stacks
NAMED_KINDS = frozenset({"symbol", "cgroup"})


class Naming:
    """The names of one target. *frames* are those of a process that is being probed; *remembers*: its mappings are kept
    up to date, so that its stacks have names when it has ended."""

    def __init__(self, engine: Engine, frames: KernelFrames | UserFrames | None, *, remembers: bool) -> None:
        self._engine = engine
        self._frames = frames
        self._remember_at = time.monotonic() + REMEMBER_S if remembers else float("inf")
        self._cgroups: dict[int, str] = {}

    def remember(self) -> None:
        """Keep what a process has mapped, every now and then."""
        if time.monotonic() >= self._remember_at:
            getattr(self._frames, "remember", int)()
            self._remember_at = time.monotonic() + REMEMBER_S

    def frames(self, addresses: Iterable[int]) -> list[str]:
        """Return the names of the frames of a stack."""
        return self._named().names(addresses)

    def symbol(self, address: int) -> str:
        """Return what lies at *address*: `symbol`, `symbol+0x10`, or the address where nothing tells."""
        return self._named().symbol(address)

    def printed(self, address: int) -> str:
        """Return *address* of a kernel as the kernel prints it: `symbol+0x4/0x370`; of a process as it is."""
        printed = getattr(self._named(), "printed", None)
        return f"{address:#x}" if printed is None else str(printed(address))

    def cgroup(self, number: int) -> str:
        """Return the path of the cgroup with the id *number*, below the root of cgroups; empty where it is gone."""
        if number not in self._cgroups:
            listed = self._engine.facts().text("cgroups") or ""
            rows = (line.partition(" ") for line in listed.splitlines())
            self._cgroups.update((int(one), path) for one, _, path in rows if one.isdigit())
        return self._cgroups.setdefault(number, "")

    def known(self, value: Any) -> Any:
        """Return *value*, with its name if it is a number of the target's that is shown by one."""
        from kprobes.events.value import CgroupId, KnownAddress, KnownCgroup, SymbolAddress

        if isinstance(value, SymbolAddress) and not isinstance(value, KnownAddress):
            return KnownAddress(value, self.symbol(value))
        if isinstance(value, CgroupId) and not isinstance(value, KnownCgroup):
            return KnownCgroup(value, self.cgroup(value))
        return value

    def with_names(self, layout: MapLayout, held: Any) -> Any:
        """Return *held*, what the map of *layout* holds, with names in its keys."""
        if not isinstance(held, dict) or not any(field.kind in NAMED_KINDS for field in layout.key):
            return held

        def known(key: Any) -> Any:
            return tuple(map(self.known, key)) if isinstance(key, tuple) else self.known(key)

        return type(held)((known(key), value) for key, value in held.items())

    def close(self) -> None:
        """Let go of what is open; idempotent."""
        getattr(self._frames, "close", int)()

    def _named(self) -> KernelFrames | UserFrames:
        if self._frames is None:
            from kprobes.symbols.frames import KernelFrames, UserFrames

            pid = getattr(self._engine, "pid", 0) if getattr(self._engine, "is_native", False) else 0
            self._frames = UserFrames(pid) if pid else KernelFrames(self._engine.facts().kallsyms())
        return self._frames
