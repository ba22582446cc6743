"""A definition and its filter become a handler: fetch, judge, send.

Arguments are fetched in the kernel's order, but those that the filter asks about come first, so that a hit that it
rejects costs no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.fetch.fetching import Fetching
from kprobes.compiler.front.build import Builder
from kprobes.compiler.ir.nodes import Emit, Handler, Place, RestoreCall, SaveCall
from kprobes.model.fetched import event_layout
from kprobes.model.layout import pack_fields

if TYPE_CHECKING:
    from kprobes.compiler.fetch.place import Surroundings
    from kprobes.grammar.filter import Expression

_FILE = "<definition>"
_END = Place(1, 0)


def lower_definition(around: Surroundings, condition: Expression | None = None) -> Handler:
    """Return the handler of a definition, which sends its event where *condition* holds.

    Raises:
        UnsupportedError: it asks for what can't be had by this way, or depends on types that aren't known.
        UsageError: its record becomes too large.
    """
    name, layout = around.definition.event, event_layout(around.definition, around.first_event_id, around.strings)
    main, before = Builder(name, "exit" if around.returns else "entry"), Builder(name, "entry")
    fetching = Fetching(around, layout, main, before)
    if condition is not None:
        fetching.judge(condition)
    operands = fetching.operands([field.name for field in layout.fields])
    main.add(Emit(_END, layout.id, tuple(operands)))
    entry = None
    fields = pack_fields([(slot.name[1:], "uint", 8) for slot, _ in fetching.kept.values()])[0]
    if fetching.kept:
        slots, values = zip(*fetching.kept.values(), strict=True)
        before.add(SaveCall(_END, tuple(values)))
        main.prologue_block.nodes.append(RestoreCall(_END, tuple(slots)))
        entry = before.finish(_END)
    first, last = (entry, main.finish(_END)) if around.returns else (main.finish(_END), None)
    return Handler(name, first, last, (), (layout,), fields, _FILE, {1: around.text}, arch=around.arch)
