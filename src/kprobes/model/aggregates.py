"""Aggregates besides Count and Histogram: Sum, Min, Max, Avg, Stacks. Handlers add to them; Python reads them."""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.frozen import dataclass
from kprobes.model.layout import MapLayout
from kprobes.model.mapspec import DEFAULT_ENTRIES, MapSpec, Stack, TypeSpec, UserStack, fields_of, only_in_handlers

_WINDOW = 8  # bytes at the end of a key


def _layout(name: str, kind: str, by: TypeSpec | None, entries: int, shards: int) -> MapLayout:
    value_size = 8 if kind == "count" else 16
    key, size = fields_of(by, "key")
    if not key:
        return MapLayout(name, kind, 4, value_size * shards, 1, shards=shards)
    return MapLayout(name, kind, size + _WINDOW, value_size, entries, key=key, windowed=True)


class _Aggregate(MapSpec):
    """What is added value by value, under keys or not."""

    __slots__ = ()

    name: str
    by: TypeSpec | None
    entries: int

    def add(self, value: int, *, by: object = None) -> None:
        """Take *value* in under the key *by* (only in a handler)."""
        only_in_handlers(f"{self.name}.add")


@dataclass(frozen=True, slots=True, eq=False)
class Sum(_Aggregate):
    """Sums under keys: `Sum("bytes", by=str)`, in a handler `bytes.add(count, by=comm())`.

    `session[bytes]` is a dict from key to sum, or one int without `by`; i64, and it wraps. At most *entries* keys.
    """

    name: str
    by: TypeSpec | None = None
    entries: int = DEFAULT_ENTRIES

    def layout(self, shards: int) -> MapLayout:
        """Return the layout; *shards* as for Count."""
        return _layout(self.name, "count", self.by, self.entries, shards)


@dataclass(frozen=True, slots=True, eq=False)
class Min(_Aggregate):
    """The least value under each key: `Min("shortest", by=str)`, in a handler `shortest.add(took, by=comm())`.

    `session[shortest]` is a dict from key to int, or without `by` one int, None where nothing was added. What is above
    2**63 - 1 counts as that.
    """

    name: str
    by: TypeSpec | None = None
    entries: int = DEFAULT_ENTRIES

    def layout(self, shards: int) -> MapLayout:
        """Return the layout; *shards* as for Count."""
        return _layout(self.name, "min", self.by, self.entries, shards)


@dataclass(frozen=True, slots=True, eq=False)
class Max(_Aggregate):
    """The greatest value under each key: as `Min`."""

    name: str
    by: TypeSpec | None = None
    entries: int = DEFAULT_ENTRIES

    def layout(self, shards: int) -> MapLayout:
        """Return the layout; *shards* as for Count."""
        return _layout(self.name, "max", self.by, self.entries, shards)


@dataclass(frozen=True, slots=True, eq=False)
class Avg(_Aggregate):
    """The mean under each key: `Avg("size", by=str)`, in a handler `size.add(count, by=comm())`.

    `session[size]` is a dict from key to `Average`, or one without `by`: `float(average)` is the mean, and it has its
    `count` and `total`.
    """

    name: str
    by: TypeSpec | None = None
    entries: int = DEFAULT_ENTRIES

    def layout(self, shards: int) -> MapLayout:
        """Return the layout; *shards* as for Count."""
        return _layout(self.name, "avg", self.by, self.entries, shards)


@dataclass(frozen=True, slots=True, eq=False)
class Stacks(MapSpec):
    """How often each stack was seen: `Stacks("where", by=str)`, in a handler `where.add(by=comm())`.

    *kernel* and *user* say whose stack is taken; inside of a process either is the program's. `session[where]` is a
    dict whose keys are frames, innermost first: `Frames`, or a tuple of those asked for and the key `by`.
    """

    name: str
    kernel: bool = True
    user: bool = False
    by: TypeSpec | None = None
    entries: int = DEFAULT_ENTRIES

    def add(self, amount: int = 1, *, by: object = None) -> None:
        """Add *amount* under the stack and the key *by* (only in a handler)."""
        only_in_handlers(f"{self.name}.add")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the words that give the stacks to take."""
        return ("stack",) * self.kernel + ("user_stack",) * self.user

    def layout(self, shards: int) -> MapLayout:
        """Return the layout; *shards* as for Count."""
        if not self.kinds:
            raise UsageError(f"{self.name} takes no stack at all", hint="leave kernel=False out, or say user=True")
        by = () if self.by is None else self.by if isinstance(self.by, tuple) else (self.by,)
        stacks = (Stack,) * self.kernel + (UserStack,) * self.user
        return _layout(self.name, "count", (*stacks, *by), self.entries, shards)
