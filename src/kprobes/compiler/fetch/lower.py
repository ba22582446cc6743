"""A definition and its filter become a handler: fetch, judge, send.

Arguments are fetched in the kernel's order, but those that the filter asks about come first, so that a hit that it
rejects costs no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.fetch import arguments
from kprobes.compiler.fetch.filters import judge, names_of
from kprobes.compiler.fetch.terms import Terms
from kprobes.compiler.front.build import Builder
from kprobes.compiler.ir.nodes import I64, U64, Emit, Handler, MapSample, Place, RestoreCall, SaveCall, Slot, Value
from kprobes.errors import UsageError
from kprobes.model.fetched import HEAD, event_layout, field_names
from kprobes.model.layout import pack_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.compiler.fetch.place import Sample, Surroundings
    from kprobes.compiler.ir.nodes import Operand
    from kprobes.grammar.filter import Expression
    from kprobes.model.definition import Argument

_FILE = "<definition>"
# What samples can be sorted by besides arguments.
KEYS = {"comm": "_comm", "pid": "_pid", "tid": "_tid", "cpu": "_cpu"}


def lower_definition(
    around: Surroundings, condition: Expression | None = None, sample: Sample | None = None
) -> Handler:
    """Return the handler of a definition, which sends its event, or adds a *sample*, where *condition* holds.

    Raises:
        UnsupportedError: it asks for what can't be had by this way, or depends on types that aren't known.
        UsageError: its record becomes too large; there is nothing to sample by that name.
    """
    return _Lowering(around, condition, sample).handler()


class _Lowering:
    """The two parts of the handler while they grow: the entry keeps what the return asks it for."""

    def __init__(self, around: Surroundings, condition: Expression | None, sample: Sample | None) -> None:
        self._around = around
        self._condition = condition
        self._sample = sample
        self._name = around.definition.event
        self._layout = event_layout(around.definition, around.first_event_id, around.strings)
        self._main = Builder(self._name, "exit" if around.returns else "entry")
        self._entry = Builder(self._name, "entry")
        self._at_entry = Terms(self._entry, around, self._keep)
        self._terms = Terms(self._main, around, self._keep)
        self._kept: dict[str, tuple[Slot, Value]] = {}

    def handler(self) -> Handler:
        """Return the whole handler."""
        self._send()
        end = Place(1, 0)
        entry = None
        fields = pack_fields([(slot.name[1:], "uint", 8) for slot, _ in self._kept.values()])[0]
        if self._kept:
            slots, values = zip(*self._kept.values(), strict=True)
            self._entry.add(SaveCall(end, tuple(values)))
            self._main.prologue_block.nodes.append(RestoreCall(end, tuple(slots)))
            entry = self._entry.finish(end)
        main = self._main.finish(end)
        lines, arch = {1: self._around.text}, self._around.arch
        first, last = (entry, main) if self._around.returns else (main, None)
        maps = (self._sample.layout,) if self._sample else ()
        events = () if self._sample else (self._layout,)
        return Handler(self._name, first, last, maps, events, fields, _FILE, lines, arch=arch)

    def _keep(self, name: str, make: Callable[[Terms], Value]) -> Value:
        """Return what *make* makes at the entry, kept for the return."""
        if name not in self._kept:
            self._kept[name] = (Slot(f".{name}", U64), make(self._at_entry))
        return self._main.read_slot(self._terms.place, self._kept[name][0])

    def _send(self) -> None:
        layout, wanted = self._layout, names_of(self._condition)
        operands: dict[str, Operand] = {}
        if self._condition is not None:
            operands |= self._head()
            operands |= self._fetched([one for one in self._around.definition.arguments if one.name in wanted])
            self._judge(self._condition, operands)
        if self._sample is not None:
            self._add(self._sample, operands)
            return
        operands |= self._fetched([one for one in self._around.definition.arguments if one.name not in wanted])
        if self._condition is None:
            operands |= self._head()
        self._main.add(Emit(Place(1, 0), layout.id, tuple(operands[field.name] for field in layout.fields)))

    def _add(self, sample: Sample, operands: dict[str, Operand]) -> None:
        """Add *sample* to its histogram; *operands* are those that the filter has asked about."""
        names = {sample.name, sample.by} - operands.keys()
        operands |= self._fetched([one for one in self._around.definition.arguments if one.name in names])
        if KEYS.get(sample.by, "_pid") not in operands:
            operands |= self._head()
        key = self._number(KEYS.get(sample.by, sample.by), operands, texts=True) if sample.by else None
        value = self._number(sample.name, operands)
        assert isinstance(value, Value)
        weight = self._main.const(Place(1, 0), 1, I64)
        keys = () if key is None else (key,)
        self._main.add(MapSample(Place(1, 0), sample.layout.name, keys, value, weight))

    def _number(self, name: str, operands: dict[str, Operand], *, texts: bool = False) -> Operand:
        """Return the operand *name* as 64 bits, or, where *texts* will do, as the string that it is.

        Raises:
            UsageError: there is none, or it is a string.
        """
        found = operands.get(name)
        if found is None or (isinstance(found, Slot) and not (texts and name == KEYS["comm"])):
            known = [one.name for one in self._around.definition.arguments if not (one.count or one.type.string)]
            hint = f"name one of {', '.join(known)}" if known else "let the definition fetch one: size=%dx"
            raise UsageError(f"{name!r} is no number that the definition fetches", hint=hint)
        if isinstance(found, Slot):
            return found
        return self._main.convert(Place(1, 0), found, I64 if found.type.signed else U64)

    def _head(self) -> dict[str, Operand]:
        self._terms.place = Place(1, 0)
        names = [field.name for field in self._layout.fields if field.name in HEAD]
        return dict(zip(names, arguments.head(self._terms), strict=True))

    def _fetched(self, given: Sequence[Argument]) -> dict[str, Operand]:
        """Return the operands of the arguments *given* by the names of their fields."""
        sizes = {field.name: field.size for field in self._layout.fields}
        found: dict[str, Operand] = {}
        for one in given:
            self._terms.place = Place(1, max(0, self._around.text.find(one.body)))
            names = field_names(one)
            slots = [Slot(f".{name}", None, sizes[name]) for name in names]
            found |= zip(names, arguments.fetch(self._terms, one, slots), strict=True)
        return found

    def _judge(self, condition: Expression, operands: dict[str, Operand]) -> None:
        """Leave where *condition* doesn't hold."""
        build, place = self._main, Place(1, 0)
        passes, rejected = build.new_block("passes"), build.new_block("rejected")
        judge(build, condition, operands, (passes, rejected))
        build.place_block(rejected)
        build.leave(place)
        build.place_block(passes)
