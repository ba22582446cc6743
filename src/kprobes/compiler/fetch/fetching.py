"""What a definition fetches, as it is asked for: the fields of its event become operands, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.fetch import arguments
from kprobes.compiler.fetch.filters import OWN, judge, names_of
from kprobes.compiler.fetch.terms import Terms
from kprobes.compiler.ir.nodes import U64, Place, Slot
from kprobes.model.fetched import HEAD, field_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kprobes.compiler.fetch.place import Surroundings
    from kprobes.compiler.front.build import Builder
    from kprobes.compiler.ir.nodes import Operand, Value
    from kprobes.grammar.filter import Expression
    from kprobes.model.layout import EventLayout

_HERE = Place(1, 0)


class Fetching:
    """The two parts of the handler while they grow: *main* fetches the fields of *layout*; *entry* keeps what the
    return asks it for in slots, which it writes only with *writes*: else whoever finishes it saves what is `kept`."""

    def __init__(
        self, around: Surroundings, layout: EventLayout, main: Builder, entry: Builder, *, writes: bool = False
    ) -> None:
        self.kept: dict[str, tuple[Slot, Value]] = {}
        self._around = around
        self._main = main
        self._entry = entry
        self._writes = writes
        self._at_entry = Terms(entry, around, self._keep)
        self._terms = Terms(main, around, self._keep)
        self._head = [field.name for field in layout.fields if field.name in HEAD]
        self._sizes = {field.name: field.size for field in layout.fields}
        self._owners = {name: one for one in around.definition.arguments for name in field_names(one)}
        self._known: dict[str, Operand] = {}

    def judge(self, condition: Expression) -> None:
        """Leave where *condition* doesn't hold."""
        build, wanted = self._main, names_of(condition)
        asked = [one for one in self._around.definition.arguments if one.name in wanted]
        if len(wanted) > len(asked):
            self._fetch_head()
        for one in asked:
            self.operands(field_names(one))
        passes, rejected = build.new_block("passes"), build.new_block("rejected")
        judge(build, condition, self._for_filter(), (passes, rejected))
        build.place_block(rejected)
        build.leave(_HERE)
        build.place_block(passes)

    def _for_filter(self) -> dict[str, Operand]:
        """Return what is fetched by the names of a filter: an argument hides what every event has by its name."""
        hidden = {one.name for one in self._around.definition.arguments}
        heads = {name: self._known[own] for name, own in OWN.items() if name not in hidden and own in self._known}
        return heads | {name: one for name, one in self._known.items() if name in hidden}

    def operands(self, names: Iterable[str]) -> list[Operand]:
        """Return the operands of the fields *names*; what is not fetched yet is, the head as the last.

        Raises:
            UnsupportedError: it can't be had by this way, or depends on types that aren't known.
        """
        names = list(names)
        for name in names:
            if name not in self._known and name in self._owners:
                self._fetch(name)
        if any(name not in self._known for name in names):
            self._fetch_head()
        return [self._known[name] for name in names]

    def _fetch(self, name: str) -> None:
        argument = self._owners[name]
        self._terms.place = Place(1, max(0, self._around.text.find(argument.body)))
        names = field_names(argument)
        slots = [Slot(f".field {one}", None, self._sizes[one]) for one in names]
        self._known |= zip(names, arguments.fetch(self._terms, argument, slots), strict=True)

    def _fetch_head(self) -> None:
        if self._head and self._head[0] not in self._known:
            self._terms.place = _HERE
            self._known |= zip(self._head, arguments.head(self._terms), strict=True)

    def _keep(self, name: str, make: Callable[[Terms], Value]) -> Value:
        """Return what *make* makes at the entry, kept for the return."""
        if name not in self.kept:
            called = f".{name} at entry" if self._writes else f".{name}"  # beside slots of others
            self.kept[name] = (Slot(called, U64), make(self._at_entry))
            if self._writes:
                self._entry.write_slot(self._terms.place, *self.kept[name])
        return self._main.read_slot(self._terms.place, self.kept[name][0])
