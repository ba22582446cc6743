"""Values of maps in both machines' code: keys laid out, what was found given back, arrays by index, best values."""

from __future__ import annotations

from kprobes.compiler.back.arithmetic import convert, opaque
from kprobes.compiler.back.fields import load_field, put_fields, record, take_text
from kprobes.compiler.back.memory import zero
from kprobes.compiler.ir.nodes import I64, U64
from kprobes.errors import InternalError
from kprobes.model.layout import META_WINDOW, RANKS, meta_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.compiler.back.part import Part
    from kprobes.compiler.ir.nodes import MapBump, MapRead, MapWrite, Operand, QueuePop, Value
    from kprobes.model.layout import MapLayout

_HIGHEST = (1 << 63) - 1


def as_word(part: Part, value: Value) -> str:
    """Return *value* with 64 bits."""
    return convert(part.text, value.type, I64 if value.type.signed else U64, part.value(value))


def key_of(part: Part, layout: MapLayout, operands: tuple[Operand, ...]) -> str:
    """Return a pointer to the key that *operands* make, in the window that is open now."""
    key = record(part, "key", layout.key, operands, layout.key_size)
    if layout.windowed:
        meta = meta_of(layout)
        part.need(meta)
        window = part.text.load(64, part.text.offset(part.map_value(meta.name), META_WINDOW))
        part.text.store(64, window, part.text.offset(key, layout.key_size - 8))
    return key


def give(part: Part, node: MapRead | QueuePop, is_there: str, find: Callable[[], str]) -> None:
    """Bind the results of *node* to the value at `find()` where *is_there*, else to zeros."""
    text, layout = part.text, part.layout(node.map)
    there, end = text.label("there"), text.label("looked")
    texts = [(field, slot) for field, slot in zip(layout.value, node.texts, strict=False) if slot is not None]
    missing = text.block
    text.branch(is_there, there, end)
    text.start(there)
    found = find()
    for field, slot in texts:
        take_text(part, field, slot, found)
    wanted = [(field, value) for field, value in zip(layout.value, node.to, strict=False) if value is not None]
    values = [(value, load_field(part, field, value.type, found)) for field, value in wanted]
    present = text.block
    text.start(end)
    for value, operand in values:
        nothing = "false" if value.type.bits == 1 else "0"
        part.bind(value, text.phi(f"i{value.type.bits}", [(nothing, missing), (operand, present)]))
    part.bind(node.found, text.phi("i1", [("false", missing), ("true", present)]))


def clear_texts(part: Part, node: MapRead | QueuePop) -> None:
    """Empty the texts that *node* may leave as they are."""
    for slot in node.texts:
        if slot is not None:
            zero(part.text, part.buffer(slot), slot.size)


# Arrays


def _element(part: Part, layout: MapLayout, key: tuple[Operand, ...]) -> tuple[str, Callable[[], str]]:
    """Return whether the index lies inside, and what gives the element's address then."""
    text = part.text
    # Opaque, or LLVM might compute the address from another register than the one that was checked.
    index = opaque(text, as_word(part, part.integer(key[0])))
    inside = text.let(f"icmp ult i64 {index}, {layout.max_entries}")

    def find() -> str:
        return text.offset(part.map_value(layout.name), text.let(f"mul i64 {index}, {layout.value_size}"))

    return inside, find


def array_read(part: Part, node: MapRead) -> None:
    """Read an element; outside is a fault, and zeros."""
    inside, find = _element(part, part.layout(node.map), node.key)
    clear_texts(part, node)
    part.fault(part.text.let(f"select i1 {inside}, i64 0, i64 -1"))
    give(part, node, inside, find)


def _inside(part: Part, inside: str, do: Callable[[], None]) -> None:
    text = part.text
    there, outside, end = text.label("inside"), text.label("outside"), text.label("stored")
    text.unlikely(text.let(f"xor i1 {inside}, true"), outside, there)
    text.start(outside)
    part.fault("-1")
    text.jump(end)
    text.start(there)
    do()
    text.start(end)


def array_write(part: Part, node: MapWrite) -> None:
    """Store an element; outside is a fault."""
    layout = part.layout(node.map)
    inside, find = _element(part, layout, node.key)
    _inside(part, inside, lambda: put_fields(part, layout.value, node.values, layout.value_size, find()))


def array_bump(part: Part, node: MapBump) -> None:
    """Add to an element, atomically; outside is a fault."""
    inside, find = _element(part, part.layout(node.map), node.key)
    amount = as_word(part, node.amount)
    _inside(part, inside, lambda: part.add(find(), amount))


# Min and Max


def rank(part: Part, layout: MapLayout, sample: Value) -> str:
    """Return the rank of *sample* in a `min` or `max` (see `model.layout.rank_of`)."""
    text, word = part.text, as_word(part, sample)
    if layout.kind not in RANKS:
        raise InternalError(f"the map {layout.name} ranks no values")
    if not sample.type.signed:
        word = text.let(f"select i1 {text.let(f'icmp slt i64 {word}, 0')}, i64 {_HIGHEST}, i64 {word}")
    flip = RANKS[layout.kind]
    return text.let(f"xor i64 {word}, {flip - (1 << 64) if flip >> 63 else flip}")
