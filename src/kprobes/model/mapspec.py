"""What the user names in a handler to keep state: Count, Histogram, HashMap, and the types of their keys. More maps are
in `model.aggregates` and `model.containers`.

These objects are names with a shape. Their methods are written in handlers, which are compiled; calling them in plain
Python is a mistake and says so.
"""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.frozen import dataclass
from kprobes.model.layout import Buckets, Field, MapLayout, pack_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from kprobes.model.cwords import ArrayOf, CWord

DEFAULT_ENTRIES = 10240
COMM_SIZE = 16


@dataclass(frozen=True, slots=True)
class String:
    """A string of at most *size* - 1 bytes as a key or value."""

    size: int


@dataclass(frozen=True, slots=True)
class Unsigned:
    """An unsigned integer of *size* bytes as a key or value."""

    size: int = 8


class Stack:
    """A kernel stack as a key: what `stack()` returns."""


class UserStack:
    """A user stack as a key: what `user_stack()` returns."""


class Symbol:
    """An address that is shown by its symbol."""


class Cgroup:
    """The id of a cgroup as a key, shown as its path or container: what `cgroup()` returns."""


if TYPE_CHECKING:
    TypeSpec = type | String | Unsigned | CWord | ArrayOf | tuple["TypeSpec", ...]
else:
    TypeSpec = object  # the words of C are loaded by those who name them

_SCALARS: dict[object, tuple[str, int]] = {
    int: ("int", 8),
    bool: ("bool", 8),
    str: ("str", COMM_SIZE),
    Stack: ("stack", 8),
    UserStack: ("user_stack", 8),
    Symbol: ("symbol", 8),
    Cgroup: ("cgroup", 8),
}


def fields_of(spec: TypeSpec | None, name: str) -> tuple[tuple[Field, ...], int]:
    """Lay out the type *spec* (of a key or value called *name*); return its fields and its size in bytes.

    Raises:
        UsageError: the type can't be kept in a map.
    """
    if spec is None:
        return (), 0
    parts = spec if isinstance(spec, tuple) else (spec,)
    flat: list[tuple[str, str, int]] = []
    named: dict[str, Field] = {}
    for index, part in enumerate(parts):
        label = name if len(parts) == 1 else f"{name}{index}"
        if isinstance(part, String):
            flat.append((label, "str", part.size))
        elif isinstance(part, Unsigned):
            flat.append((label, "uint", part.size))
        elif not isinstance(part, tuple) and part in _SCALARS:
            kind, size = _SCALARS[part]
            flat.append((label, kind, size))
        else:
            from kprobes.model.structs import fields_of_type

            typed = fields_of_type(part, label)
            if not typed:
                raise UsageError(
                    f"{part!r} can't be a key or value of a map",
                    hint="use int, bool, str, u32, String(n), Stack, Symbol, @struct or enum classes, a tuple of them",
                )
            flat += [(one.name, one.kind, one.size) for one in typed]
            named.update((one.name, one) for one in typed if one.names)
    fields, size = pack_fields(flat)
    if not named:
        return fields, size
    return tuple(_with_names(one, named.get(one.name)) for one in fields), size


def _with_names(field: Field, like: Field | None) -> Field:
    if like is None:
        return field
    return Field(field.name, field.kind, field.offset, field.size, like.names, like.flags)


class MapSpec:
    """A map by its name and shape: what every sort of them offers to the compiler."""

    __slots__ = ()
    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """Return the name, one a session."""

    def layout(self, shards: int) -> MapLayout:
        """Return the layout; *shards* is the power of two of per-CPU shares of a map without key.

        Raises:
            UsageError: its shape is wrong.
        """
        raise NotImplementedError


def only_in_handlers(what: str) -> NoReturn:
    """Say that *what* was called in plain Python."""
    raise UsageError(
        f"{what} runs only inside a handler, which is compiled",
        hint="read the result with session[map] while or after the session runs",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Count(MapSpec):
    """Sums under keys: `Count("opens", by=str)`, in a handler `opens.add(by=comm())`, `opens.add(5)`.

    `session[opens]` is a dict from key to sum, or one int without `by`. At most *entries* keys.
    """

    name: str
    by: TypeSpec | None = None
    entries: int = DEFAULT_ENTRIES

    def add(self, amount: int = 1, *, by: object = None) -> None:
        """Add *amount* under the key *by* (only in a handler)."""
        only_in_handlers(f"{self.name}.add")

    def layout(self, shards: int) -> MapLayout:
        """Return the layout; *shards* is the power of two of per-CPU shares of a map without key."""
        key, size = fields_of(self.by, "key")
        if not key:
            return MapLayout(self.name, "count", 4, 8 * shards, 1, shards=shards)
        return MapLayout(self.name, "count", size, 8, self.entries, key=key)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram(MapSpec):
    """A distribution of integers under keys: `Histogram("usecs", by=str)`, in a handler `usecs.add(value, by=comm())`.

    Buckets are powers of two, or linear with `Histogram("size", linear=(low, high, step))`. `session[usecs]` is a
    dict from key
    to `Distribution`, or one without `by`.
    """

    name: str
    by: TypeSpec | None = None
    linear: tuple[int, int, int] | None = None
    entries: int = 1024

    def add(self, value: int, *, by: object = None, weight: int = 1) -> None:
        """Add *weight* to the bucket of *value* under the key *by* (only in a handler)."""
        only_in_handlers(f"{self.name}.add")

    @property
    def buckets(self) -> Buckets:
        """Return how values are sorted.

        Raises:
            UsageError: the linear range is empty or has more than 1,024 steps.
        """
        if self.linear is None:
            return Buckets()
        low, high, step = self.linear
        if step <= 0 or high <= low or (high - low) // step > 1024:
            raise UsageError(
                f"{self.name}: linear=({low}, {high}, {step}) is no range of 1 to 1,024 steps",
                hint="give (low, high, step) with low < high and step > 0",
            )
        return Buckets("linear", low, step, -(-(high - low) // step))

    def layout(self, shards: int) -> MapLayout:
        """Return the layout; *shards* as for Count."""
        key, size = fields_of(self.by, "key")
        bytes_each = 8 * self.buckets.total
        if not key:
            return MapLayout(self.name, "histogram", 4, bytes_each * shards, 1, buckets=self.buckets, shards=shards)
        return MapLayout(self.name, "histogram", size, bytes_each, self.entries, key=key, buckets=self.buckets)


@dataclass(frozen=True, slots=True, eq=False)
class HashMap(MapSpec):
    """State between hits: `HashMap("opened", key=int, value=int)`; in a handler `m[k] = v`, `m[k]`, `m.get(k, 0)`,
    `k in m`,
    `del m[k]`, `m[k] += 1`.

    `session[m]` is a dict. At most *entries* keys. A write to a full map is dropped and counted; with *lru* the key
    that was used longest ago goes instead.
    """

    name: str
    key: TypeSpec = int
    value: TypeSpec = int
    entries: int = DEFAULT_ENTRIES
    lru: bool = False

    def __getitem__(self, key: object) -> int:
        only_in_handlers(f"{self.name}[...]")

    def __setitem__(self, key: object, value: object) -> None:
        only_in_handlers(f"{self.name}[...] =")

    def __delitem__(self, key: object) -> None:
        only_in_handlers(f"del {self.name}[...]")

    def __contains__(self, key: object) -> bool:
        only_in_handlers(f"in {self.name}")

    def get(self, key: object, default: int = 0) -> int:
        """Return the value under *key*, or *default* (only in a handler)."""
        only_in_handlers(f"{self.name}.get")

    def pop(self, key: object, default: int = 0) -> int:
        """Forget *key* and return what its value was, or *default* (only in a handler)."""
        only_in_handlers(f"{self.name}.pop")

    def layout(self, shards: int) -> MapLayout:
        """Return the layout."""
        key, key_size = fields_of(self.key, "key")
        value, value_size = fields_of(self.value, "value")
        kind = "lru" if self.lru else "hash"
        return MapLayout(self.name, kind, key_size, value_size, self.entries, key=key, value=value)
