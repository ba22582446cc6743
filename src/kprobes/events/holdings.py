"""What the maps of a session hold: read, taken, cleared, counted where they were full.

*Taking* reads a map and leaves nothing of it, and what handlers add meanwhile is either in what was taken or still
there:

- Of aggregates that only grow the engine can't take anything without a handler's addition falling in between. They stay
  as they are, and what has been taken is remembered here and left out from then on. Their keys keep their room.
- Aggregates by key that number their windows get a new one. When no handler adds to the old one any more the engine
  takes its keys out (see `MapLayout.windowed`).
- All else is exchanged word by word, or taken key by key.
"""

from __future__ import annotations

from struct import pack, unpack

from kprobes.errors import UsageError
from kprobes.events.aggregate import read_map
from kprobes.model.layout import META_DROPPED, meta_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from kprobes.model.layout import MapLayout

    Pairs = list[tuple[bytes, bytes]]

    class Source(Protocol):
        """Where the raw content comes from: a part of `engines.port.Attached`."""

        def read_map(self, name: str) -> Pairs:
            """Return the (key, value) pairs."""

        def take_map(self, name: str) -> Pairs:
            """Return them, and leave nothing of them."""


_GROWING = frozenset({"count", "histogram", "avg"})


class Holdings:
    """The maps in *layouts*, whose content *source* gives."""

    def __init__(self, layouts: Sequence[MapLayout], source: Source) -> None:
        self._layouts = {layout.name: layout for layout in layouts}
        self._source = source
        self._taken: dict[str, dict[bytes, bytes]] = {}

    def moved(self, layouts: Sequence[MapLayout], source: Source) -> Holdings:
        """Return these maps as they are elsewhere, with the same content."""
        found = Holdings(layouts, source)
        found._taken = {name: taken for name, taken in self._taken.items() if name in found._layouts}
        return found

    def layout(self, name: str) -> MapLayout:
        """Return the layout of the map called *name*.

        Raises:
            UsageError: no handler uses such a map.
        """
        layout = self._layouts.get(name)
        if layout is None:
            named = [name for name in self._layouts if not name.startswith(".") and name != "stats"]
            hint = f"its maps are {', '.join(named)}" if named else "its handlers use none"
            raise UsageError(f"no handler of this session uses a map {name!r}", hint=hint)
        return layout

    def read(self, name: str) -> Any:
        """Return what the map called *name* holds now.

        Raises:
            UsageError: no handler uses such a map, or it is a queue.
        """
        layout = self.layout(name)
        return read_map(self._pairs(layout), layout)

    def _pairs(self, layout: MapLayout) -> Pairs:
        if layout.kind == "queue":
            raise UsageError(
                f"{layout.name} is a queue, which can't be read without taking what waits in it",
                hint=f"session.take({layout.name})",
            )
        pairs = self._source.read_map(layout.name)
        taken = self._taken.get(layout.name)
        return _without(pairs, taken) if taken else pairs

    def take(self, name: str) -> Any:
        """Return what the map called *name* holds now, and leave nothing of it.

        Raises:
            UsageError: no handler uses such a map.
        """
        layout = self.layout(name)
        return read_map(self._take(layout), layout)

    def _take(self, layout: MapLayout) -> Pairs:
        if layout.kind not in _GROWING or layout.windowed:
            return self._source.take_map(layout.name)
        pairs = self._source.read_map(layout.name)
        left = _without(pairs, self._taken.get(layout.name, {}))
        self._taken[layout.name] = dict(pairs)
        return left

    def clear(self, name: str) -> None:
        """Forget what the map called *name* holds.

        Raises:
            UsageError: no handler uses such a map.
        """
        self._take(self.layout(name))

    def table(self, name: str) -> Any:
        """Return what the map called *name* holds as a `pyarrow.Table`.

        Raises:
            UsageError: as `read`. UnsupportedError: pyarrow isn't installed.
        """
        from kprobes.events.map_table import table_of

        layout = self.layout(name)
        return table_of(layout, read_map(self._pairs(layout), layout))

    def dropped(self) -> dict[str, int]:
        """Return how many writes found no room, by the name of the map; only those of which there are any."""
        found = {}
        for layout in self._layouts.values():
            meta = self._layouts.get(meta_of(layout).name)
            if meta is not None:
                ((_, value),) = self._source.read_map(meta.name)
                found[layout.name] = int.from_bytes(value[META_DROPPED : META_DROPPED + 8], "little")
        return {name: number for name, number in found.items() if number}


def _without(pairs: Pairs, taken: dict[bytes, bytes]) -> Pairs:
    """Return what of *pairs*, values of u64 words, has come since they were *taken*; keys without any are left out."""
    left = []
    for key, value in pairs:
        before = taken.get(key)
        if before is None:
            left.append((key, value))
        elif before != value or not key:
            shape = f"<{len(value) // 8}Q"
            words = zip(unpack(shape, value), unpack(shape, before), strict=True)
            left.append((key, pack(shape, *((now - then) & (1 << 64) - 1 for now, then in words))))
    return left
