"""A handler in the handler language that runs behind a definition: it knows what is fetched by the names of the fields.

    p:opened do_sys_openat2 dfd=%di:s32 name=+0(%si):string    and    if dfd < 0: emit(*_head, *_fields, _stack=stack())

`_head` and `_fields` are the event's, as it has them, `_field_dfd` is one of them; what no expression asks about is
fetched where it is sent. Of an array the name is a tuple.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kprobes.compiler.fetch.fetching import Fetching
from kprobes.compiler.front.compile import compile_handler
from kprobes.compiler.front.terms import Fields, Items, Number, Term, Text, limits, widened
from kprobes.compiler.ir.nodes import Slot
from kprobes.frozen import replace
from kprobes.model.fetched import HEAD, event_layout, field_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.compiler.fetch.place import Surroundings
    from kprobes.compiler.front.build import Builder
    from kprobes.compiler.front.compile import Surroundings as Around
    from kprobes.compiler.front.context import Context
    from kprobes.compiler.ir.nodes import Handler, Operand
    from kprobes.grammar.filter import Expression
    from kprobes.model.layout import Field
    from kprobes.model.mapspec import MapSpec
    from kprobes.model.probe import HandlerSource

_KINDS = {"symstr": "symbol"}


def lower_following(
    around: Surroundings, condition: Expression | None, source: HandlerSource, behind: Around, maps: dict[str, MapSpec]
) -> Handler:
    """Return the handler of a definition behind which *source* runs where *condition* holds.

    *behind* is what `compile_handler` has as surroundings, *maps* are the maps by name.

    Raises:
        CompileError: *source* is outside of the language.
        UnsupportedError: the definition asks for what can't be had by this way, or depends on types that aren't known.
        UsageError: its record becomes too large.
    """
    found = compile_handler(source, behind, maps, given=_Given(around, condition, source.text))
    text = around.definition.text
    return replace(found, events=tuple(replace(one, definition=text) for one in found.events))


class _Given:
    """What the handler begins with: see `front.context.Given`."""

    def __init__(self, around: Surroundings, condition: Expression | None, text: str) -> None:
        self._around = around
        self._condition = condition
        self._words = set(re.findall(r"\w+", text))
        self._layout = event_layout(around.definition, around.first_event_id, around.strings)

    def begin(self, ctx: Context, entry: Builder) -> dict[str, Term]:
        """Fetch and judge; return what the names stand for."""
        ctx.lines[1] = self._around.text
        fetching = Fetching(self._around, self._layout, ctx.build, entry, writes=True)
        if self._condition is not None:
            fetching.judge(self._condition)
        heads = [one for one in self._layout.fields if one.name in HEAD]
        others = [one for one in self._layout.fields if one.name not in HEAD]
        kinds = {field.name: field.kind for field in self._layout.fields}
        names = {one.name: field_names(one) for one in self._around.definition.arguments}
        names |= {one.name: [one.name] for one in heads}
        asked = {name: parts for name, parts in names.items() if name in self._words}
        found = {name: self._term(ctx, kinds, parts, fetching.operands(parts)) for name, parts in asked.items()}
        found |= {"_head": _ready(fetching, heads), "_fields": _ready(fetching, others)}
        by_name = {one.name: one for one in others}
        for argument in self._around.definition.arguments:
            own = [by_name[name] for name in field_names(argument)]
            found[f"_field_{argument.name}"] = _ready(fetching, own)
        return found

    def _term(self, ctx: Context, kinds: dict[str, str], names: list[str], operands: list[Operand]) -> Term:
        terms = [_plain(ctx, kinds[name], one) for name, one in zip(names, operands, strict=True)]
        return Items(tuple(terms)) if "[" in names[0] else terms[0]


def _ready(fetching: Fetching, fields: Sequence[Field]) -> Fields:
    names, kinds = [one.name for one in fields], [one.kind for one in fields]
    return Fields(lambda: list(zip(names, kinds, fetching.operands(names), strict=True)))


def _plain(ctx: Context, kind: str, operand: Operand) -> Term:
    """Return the term of a field of the kind *kind*."""
    if isinstance(operand, Slot):
        return Text(operand.size, operand)
    low, high = limits(operand.type)
    wide = ctx.build.convert(ctx.place(ctx.text.definition), operand, widened(operand.type))
    return Number(wide, _KINDS.get(kind, kind), low, high, operand.type)
