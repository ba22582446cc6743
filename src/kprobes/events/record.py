"""One kind of record: how its bytes become values, and the class of its events."""

from __future__ import annotations

from struct import Struct

from kprobes.errors import FormatError
from kprobes.events.value import converter_of, struct_code
from kprobes.model.layout import RECORD_HEADER, EventLayout, Field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, ClassVar

    Reader = Callable[[tuple[Any, ...]], Any]

MAX_RECORD = 1 << 20
# Names that stay the event's own, since code that handles any event relies on them; event["site"] reads such a field.
RESERVED = frozenset({"layout", "fields", "site", "site_number"})


class Event:
    """One record that a handler emitted.

    Fields are attributes and items: `event.pid`, `event["pid"]`; iterating gives the values in order. `site` is the
    name of the place that was hit, `fields` a dict of all fields, `layout` describes the record; a field of one of
    these names is an item only. `name` is the event's name and `text` its line, unless it has fields of these names
    (a `log` always has its `text`).

    Values: int, bool, str (bytes that are no UTF-8 as surrogates), Address, SymbolAddress, StackId, UserStackId.
    """

    __slots__ = ("_values",)

    layout: ClassVar[EventLayout]
    _sites: ClassVar[Sequence[str]]
    _readers: ClassVar[dict[str, Reader]]

    def __init__(self, values: tuple[Any, ...]) -> None:
        self._values = values  # (event id, site number, one raw value for each field)

    if TYPE_CHECKING:
        # What fields an event has is known to the handler that emits it, not to a type checker.
        def __getattr__(self, name: str) -> Any: ...

    @property
    def name(self) -> str:
        """Return the name of the event: its handler's."""
        return self.layout.name

    @property
    def site(self) -> str:
        """Return the name of the place that was hit."""
        return site_name(self._sites, self._values[1])

    @property
    def site_number(self) -> int:
        """Return the number of that place in the plan."""
        number: int = self._values[1]
        return number

    @property
    def text(self) -> str:
        """Return the line that a `log` made; for other events their fields as `name=value`."""
        fields = self.fields
        if self.layout.template:
            return self.layout.template.format(*fields.values(), **fields)
        return " ".join(f"{name}={value}" for name, value in fields.items())

    @property
    def fields(self) -> dict[str, Any]:
        """Return all fields by name, in the order in which the handler gave them."""
        values = self._values
        return {name: read(values) for name, read in self._readers.items()}

    def _asdict(self) -> dict[str, Any]:
        """Return all fields by name, as named tuples do."""
        return self.fields

    def __getitem__(self, name: str) -> Any:
        return self._readers[name](self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fields.values())

    def __len__(self) -> int:
        return len(self._readers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return self.layout == other.layout and self._values == other._values and self.site == other.site

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        return f"{self.layout.name}({', '.join(f'{name}={value!r}' for name, value in self.fields.items())})"

    def __reduce__(self) -> tuple[Callable[..., Event], tuple[Any, ...]]:
        return _rebuild, (self.layout, self._sites, self._values)


class Codec:
    """Reads the records of one layout. *event* is the class of its events."""

    __slots__ = ("_structs", "event", "layout", "unpack_from")

    def __init__(self, layout: EventLayout, sites: Sequence[str]) -> None:
        """Compile *layout*.

        Raises:
            FormatError: fields overlap or leave the record.
        """
        self.layout = layout
        self._structs: dict[tuple[int, int], Struct] = {}
        self.event = _event_class(layout, sites)
        self.unpack_from = self.rows(layout.size, 0).unpack_from

    def rows(self, stride: int, skip: int) -> Struct:
        """Return the struct that reads a record which begins *skip* bytes into each *stride* bytes."""
        found = self._structs.get((stride, skip))
        if found is None:
            body = struct_format(self.layout.fields, RECORD_HEADER, self.layout.size)
            tail = stride - skip - self.layout.size
            found = self._structs[stride, skip] = Struct(f"<{skip}xII{body}{tail}x")
        return found


def struct_format(fields: Sequence[Field], start: int, end: int) -> str:
    """Return the `struct` format (without byte order) that reads *fields*, which lie in bytes *start* to *end*.

    Raises:
        FormatError: fields overlap or lie elsewhere.
    """
    if not 0 <= start <= end <= MAX_RECORD:
        raise FormatError(f"a record of {end} bytes is out of range")
    parts = []
    position = start
    for field in fields:
        if field.size <= 0 or field.offset < position or field.offset + field.size > end:
            raise FormatError(f"field {field.name!r} does not fit its record of {end} bytes")
        parts.append(f"{field.offset - position}x{struct_code(field.kind, field.size)}")
        position = field.offset + field.size
    return "".join(parts) + f"{end - position}x"


def site_name(sites: Sequence[str], number: int) -> str:
    """Return the name of site *number*, `?` where the record carries a number that is none."""
    return sites[number] if 0 <= number < len(sites) else "?"


def _reader(field: Field, index: int, sites: Sequence[str]) -> Reader:
    if field.kind == "site":
        return lambda values: site_name(sites, values[index])
    convert = converter_of(field)
    if convert is None:
        return lambda values: values[index]
    return lambda values: convert(values[index])


def _attribute(reader: Reader) -> property:
    return property(lambda event: reader(event._values))


def _event_class(layout: EventLayout, sites: Sequence[str]) -> type[Event]:
    readers = {field.name: _reader(field, index, sites) for index, field in enumerate(layout.fields, 2)}
    if len(readers) != len(layout.fields):
        raise FormatError(f"event {layout.name!r} has two fields of one name")
    body: dict[str, object] = {"__slots__": (), "layout": layout, "_sites": sites, "_readers": readers}
    reserved = RESERVED | {"text"} if layout.template else RESERVED
    for name, reader in readers.items():
        if name not in reserved and not name.startswith("_"):
            body[name] = _attribute(reader)
    return type("Event", (Event,), body)


def _rebuild(layout: EventLayout, sites: Sequence[str], values: tuple[Any, ...]) -> Event:
    return _event_class(layout, sites)(values)
