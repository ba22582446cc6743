"""Maps in handlers: `count.add(1, by=comm())`, `opened[key] = value`, `key in opened`, `del opened[key]`, `last[i]`,
`late.push(value)`."""

from __future__ import annotations

from kprobes.compiler.front import cautions, integers, structs, texts
from kprobes.compiler.front.advice import advice
from kprobes.compiler.front.builtins import make
from kprobes.compiler.front.terms import Constant, Items, Map, Nothing, Number, Pointer, Term, Text, describe, integer
from kprobes.compiler.ir.nodes import (
    BOOL,
    I64,
    U64,
    IntType,
    MapAdd,
    MapBump,
    MapDelete,
    MapFold,
    MapRead,
    MapSample,
    MapWrite,
    Operand,
    QueuePop,
    QueuePush,
    Slot,
    Value,
)
from kprobes.frozen import replace
from kprobes.model.aggregates import Avg, Max, Min, Stacks, Sum
from kprobes.model.containers import Array, Queue
from kprobes.model.mapspec import Count, HashMap, Histogram

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast

    from kprobes.compiler.front.context import Context
    from kprobes.model.layout import Field

# The methods of each sort of map, with their parameters; those after the first optional one may be left out.
METHODS: dict[type, dict[str, tuple[str, ...]]] = {
    Count: {"add": ("amount", "by")},
    Histogram: {"add": ("value", "by", "weight")},
    HashMap: {"get": ("key", "default"), "pop": ("key", "default")},
    Sum: {"add": ("value", "by")},
    Min: {"add": ("value", "by")},
    Max: {"add": ("value", "by")},
    Avg: {"add": ("value", "by")},
    Stacks: {"add": ("amount", "by")},
    Array: {},
    Queue: {"push": ("value",), "pop": ("default",)},
}
_WANTED = {
    "int": "an integer",
    "uint": "an integer",
    "bool": "a truth value",
    "str": "a string",
    "stack": "a stack: stack()",
    "user_stack": "a user stack: user_stack()",
    "symbol": "an address",
    "cgroup": "the id of a cgroup: cgroup()",
    "hex": "an address",
}


def operands(
    ctx: Context, node: ast.AST, map_: Map, fields: tuple[Field, ...], term: Term, what: str
) -> tuple[Operand, ...]:
    """Return *term* as the *fields* of a key or value, which messages call *what*.

    Raises:
        CompileError: it doesn't fit them.
    """
    parts = _flat(ctx, node, term)
    if len(parts) != len(fields):
        shape = "a single one" if len(fields) == 1 else f"a tuple of {len(fields)}"
        raise ctx.error(
            node, f"the {what} of {map_.spec.name} is {shape}, this is {describe(term)}", _shape_hint(fields)
        )
    return tuple(_operand(ctx, node, map_, one, part, what) for one, part in zip(fields, parts, strict=True))


def _flat(ctx: Context, node: ast.AST, term: Term) -> list[Term]:
    """Return the parts of a tuple, and of the structs in it those that are numbers, pointers and strings."""
    found: list[Term] = []
    for part in term.items if isinstance(term, Items) else (term,):
        leaves = structs.leaves(ctx, node, part)
        found += [part] if leaves is None else [leaf for _, leaf in leaves]
    return found


def _shape_hint(fields: tuple[Field, ...]) -> str:
    return f"it holds {', '.join(_WANTED[one.kind].split(':')[0] for one in fields)}"


def _operand(ctx: Context, node: ast.AST, map_: Map, field: Field, term: Term, what: str) -> Operand:
    if not _fits(field, term):
        wanted = _WANTED[field.kind]
        hint = advice(term)
        if field.kind == "str" and isinstance(term, Pointer):
            hint = "read the string it points to: .string()"
        elif isinstance(term, Number) and term.kind in ("stack", "user_stack"):
            hint = f"declare the {what} as {'Stack' if term.kind == 'stack' else 'UserStack'}"
        elif field.kind == "int" and texts.is_text(term):
            hint = f"declare the {what} as str, or String(bytes)"
        raise ctx.error(node, f"the {what} of {map_.spec.name} is {wanted}, this is {describe(term)}", hint)
    cautions.kept(ctx, node, f"the {what} of {map_.spec.name}", field, term)
    if field.kind == "str":
        return texts.buffer(ctx, node, term, field.size)
    if field.kind == "bool":
        place = ctx.place(node)
        return ctx.build.convert(place, integers.truth(ctx, node, term), IntType(8 * field.size, signed=False))
    if isinstance(term, Pointer | Nothing):
        return ctx.build.convert(ctx.place(node), integers.address(ctx, node, term), _int_type(field))
    return integers.narrow(ctx, node, term, _int_type(field))


def _fits(field: Field, term: Term) -> bool:
    if field.kind == "str":
        return texts.is_text(term)
    if field.kind in ("stack", "user_stack"):
        return isinstance(term, Number) and term.kind == field.kind
    if isinstance(term, Number) and term.kind in ("stack", "user_stack"):
        return False
    return isinstance(term, Number | Constant | Nothing) or (isinstance(term, Pointer) and not term.embedded)


def _int_type(field: Field) -> IntType:
    return IntType(8 * field.size, signed=field.kind in ("int", "stack", "user_stack"))


def _key(ctx: Context, node: ast.AST, map_: Map, by: Term | None, by_node: ast.AST) -> tuple[Operand, ...]:
    if isinstance(map_.spec, Stacks):
        return _stacks_key(ctx, node, map_, by, by_node)
    if by is None:
        if map_.layout.key:
            raise ctx.error(node, f"{map_.spec.name} has keys, and none is given", "say which: add(..., by=...)")
        return ()
    if not map_.layout.key:
        kind = type(map_.spec).__name__
        raise ctx.error(
            by_node, f"{map_.spec.name} has no keys", f'declare it with them: {kind}("{map_.spec.name}", by=int)'
        )
    return operands(ctx, by_node, map_, map_.layout.key, by, "key")


def _stack(ctx: Context, node: ast.AST, word: str) -> Number:
    """Return a stack as a key. In a process there is only the program's: a kernel finds none of its own there."""
    taken = make(ctx, node, "user_stack" if ctx.around.kind in ("uprobe", "uretprobe") else word, {})
    assert isinstance(taken, Number)
    return integer(taken.value, word)


def _stacks_key(ctx: Context, node: ast.AST, map_: Map, by: Term | None, by_node: ast.AST) -> tuple[Operand, ...]:
    """Take the stacks, and put what is given besides behind them."""
    spec = map_.spec
    assert isinstance(spec, Stacks)
    if (by is None) != (spec.by is None):
        problem = "is counted under keys besides, and none is given" if by is None else "has no keys besides the stacks"
        raise ctx.error(by_node, f"{spec.name} {problem}", f'Stacks("{spec.name}", by=str) goes with add(by=comm())')
    stacks = tuple(_stack(ctx, node, word) for word in spec.kinds)
    rest = () if by is None else by.items if isinstance(by, Items) else (by,)
    return operands(ctx, by_node, map_, map_.layout.key, Items((*stacks, *rest)), "key")


def method(ctx: Context, node: ast.Call, map_: Map, name: str, given: dict[str, tuple[Term, ast.AST]]) -> Term:
    """Carry out `map.name(...)`; *given* are the arguments by name.

    Raises:
        CompileError: an argument is missing or of the wrong type.
    """
    if isinstance(map_.spec, HashMap):
        return _lookup_method(ctx, node, map_, name, given)
    if isinstance(map_.spec, Queue):
        return _queue_method(ctx, node, map_, name, given)
    place = ctx.place(node)
    by, by_node = given.get("by", (None, node))
    if isinstance(map_.spec, Count | Stacks):
        amount, amount_node = given.get("amount", (Constant(1), node))
        value = _integer(ctx, amount_node, amount, "the amount")
        ctx.build.add(MapAdd(place, map_.layout.name, _key(ctx, node, map_, by, by_node), value))
        return Nothing()
    if "value" not in given:
        raise ctx.error(node, f"{map_.spec.name}.add() needs the value to count", "add(value) or add(value, by=key)")
    sample = _integer(ctx, given["value"][1], given["value"][0], "the value")
    if isinstance(map_.spec, Sum):
        ctx.build.add(MapAdd(place, map_.layout.name, _key(ctx, node, map_, by, by_node), sample))
        return Nothing()
    if isinstance(map_.spec, Min | Max | Avg):
        ctx.build.add(MapFold(place, map_.layout.name, _key(ctx, node, map_, by, by_node), sample))
        return Nothing()
    weight, weight_node = given.get("weight", (Constant(1), node))
    times = _integer(ctx, weight_node, weight, "the weight")
    key = _key(ctx, node, map_, by, by_node)
    ctx.build.add(MapSample(place, map_.layout.name, key, sample, times))
    return Nothing()


def _integer(ctx: Context, node: ast.AST, term: Term, what: str) -> Value:
    if isinstance(term, Pointer):
        raise ctx.error(
            node, f"{what} must be an integer, but it is {describe(term)}", "count its address with int(...)"
        )
    return integers.number(ctx, node, term, what).value


def _lookup_method(ctx: Context, node: ast.Call, map_: Map, name: str, given: dict[str, tuple[Term, ast.AST]]) -> Term:
    if "key" not in given:
        raise ctx.error(node, f"{map_.spec.name}.{name}() needs a key", f"{map_.spec.name}.{name}(key, 0)")
    key_term, key_node = given["key"]
    key = operands(ctx, key_node, map_, map_.layout.key, key_term, "key")
    found, term = _read(ctx, node, map_, key)
    if name == "pop":
        ctx.build.add(MapDelete(ctx.place(node), map_.layout.name, key, ctx.build.value(BOOL)))
    return _or_default(ctx, node, map_, (found, term), given.get("default"))


def _queue_method(ctx: Context, node: ast.Call, map_: Map, name: str, given: dict[str, tuple[Term, ast.AST]]) -> Term:
    if name == "pop":
        return _or_default(ctx, node, map_, _results(ctx, node, map_, None), given.get("default"))
    if "value" not in given:
        raise ctx.error(node, f"{map_.spec.name}.push() needs a value", "push(value), or push((one, other))")
    values = operands(ctx, given["value"][1], map_, map_.layout.value, given["value"][0], "value")
    ctx.build.add(QueuePush(ctx.place(node), map_.layout.name, values))
    return Nothing()


def _or_default(
    ctx: Context, node: ast.Call, map_: Map, read: tuple[Value, Term], default: tuple[Term, ast.AST] | None
) -> Term:
    """Return what was read, or *default* where nothing was found."""
    found, term = read
    if default is None or default[0] == Constant(0):
        return term  # what is missing reads as zeros
    if isinstance(default[0], Nothing):
        hint = "give a number: pop(-1)" if isinstance(map_.spec, Queue) else f"test first: if key in {map_.spec.name}"
        raise ctx.error(default[1], "a value of a map is never None", hint)
    return ctx.select(node, found, lambda: term, lambda: default[0])


def _read(ctx: Context, node: ast.AST, map_: Map, key: tuple[Operand, ...]) -> tuple[Value, Term]:
    return _results(ctx, node, map_, key)


def _results(ctx: Context, node: ast.AST, map_: Map, key: tuple[Operand, ...] | None) -> tuple[Value, Term]:
    """Look *key* up, or take the next value of a queue; return whether there is one, and what it is."""
    place, build = ctx.place(node), ctx.build
    found = build.value(BOOL)
    numbers: list[Value | None] = []
    strings: list[Slot | None] = []
    for one in map_.layout.value:
        is_text = one.kind == "str"
        strings.append(ctx.new_slot(None, one.size) if is_text else None)
        numbers.append(None if is_text else build.value(_int_type(one)))
    if key is None:
        build.add(QueuePop(place, map_.layout.name, found, tuple(numbers), tuple(strings)))
    else:
        build.add(MapRead(place, map_.layout.name, key, found, tuple(numbers), tuple(strings)))
    terms = tuple(
        _term(ctx, node, one, number, string)
        for one, number, string in zip(map_.layout.value, numbers, strings, strict=True)
    )
    return found, structs.rebuilt(getattr(map_.spec, "value", int), terms)


def _term(ctx: Context, node: ast.AST, field: Field, number: Value | None, string: Slot | None) -> Term:
    if number is None:
        assert string is not None
        return Text(string.size, string)
    store = number.type if number.type.bits < 64 else None
    value = ctx.build.convert(ctx.place(node), number, U64 if number.type == U64 else I64)
    if field.kind == "bool":
        return Number(value, "bool", 0, 1)
    shown = integer(value, field.kind, store)
    return replace(shown, enum=ctx.own.of_names(field)) if field.names else shown


def read(ctx: Context, node: ast.AST, map_: Map, key_term: Term, key_node: ast.AST) -> Term:
    """Return `map[key]`; a missing key reads as zeros."""
    return _read(ctx, node, map_, _place_in(ctx, node, map_, key_term, key_node))[1]


def _place_in(ctx: Context, node: ast.AST, map_: Map, key_term: Term, key_node: ast.AST) -> tuple[Operand, ...]:
    """Return what stands for `[key]`: the fields of a key, or one index."""
    if not isinstance(map_.spec, Array):
        require_lookups(ctx, node, map_)
        return operands(ctx, key_node, map_, map_.layout.key, key_term, "key")
    index, length = _integer(ctx, key_node, key_term, "the index"), map_.spec.length
    if isinstance(key_term, Constant) and not 0 <= key_term.value < length:
        raise ctx.error(key_node, f"{map_.spec.name} has no index {key_term.value}", f"it has 0 to {length - 1}")
    return (index,)


def contains(ctx: Context, node: ast.AST, map_: Map, key_term: Term, key_node: ast.AST) -> Number:
    """Return the truth of `key in map`."""
    require_lookups(ctx, node, map_)
    key = operands(ctx, key_node, map_, map_.layout.key, key_term, "key")
    return Number(_read(ctx, node, map_, key)[0], "bool", 0, 1)


def write(
    ctx: Context, node: ast.AST, map_: Map, key_term: Term, key_node: ast.AST, value: tuple[Term, ast.AST]
) -> None:
    """Carry out `map[key] = value`."""
    key = _place_in(ctx, node, map_, key_term, key_node)
    values = operands(ctx, value[1], map_, map_.layout.value, value[0], "value")
    ctx.build.add(MapWrite(ctx.place(node), map_.layout.name, key, values))


def bump(ctx: Context, node: ast.AST, map_: Map, key_term: Term, key_node: ast.AST, amount: Value) -> None:
    """Carry out `map[key] += amount`, atomically."""
    key = _place_in(ctx, node, map_, key_term, key_node)
    ctx.build.add(MapBump(ctx.place(node), map_.layout.name, key, amount))


def is_bumpable(map_: Map) -> bool:
    """Tell whether the values of *map_* are single 64-bit integers."""
    fields = map_.layout.value
    return len(fields) == 1 and fields[0].kind in ("int", "uint") and fields[0].size == 8


def delete(ctx: Context, node: ast.AST, map_: Map, key_term: Term, key_node: ast.AST) -> None:
    """Carry out `del map[key]`; a missing key is no mistake."""
    require_lookups(ctx, node, map_)
    key = operands(ctx, key_node, map_, map_.layout.key, key_term, "key")
    ctx.build.add(MapDelete(ctx.place(node), map_.layout.name, key, ctx.build.value(BOOL)))


def require_values(ctx: Context, node: ast.AST, map_: Map) -> None:
    """Refuse `map[key] += n` where there is no `map[key]`, before its parts are looked at.

    Raises:
        CompileError: *map_* is neither a HashMap nor an Array.
    """
    if not isinstance(map_.spec, Array):
        require_lookups(ctx, node, map_)


def require_lookups(ctx: Context, node: ast.AST, map_: Map) -> None:
    """Refuse to look keys up in an aggregate, which handlers can only add to, and in what has no keys.

    Raises:
        CompileError: *map_* is no HashMap.
    """
    if not isinstance(map_.spec, HashMap):
        kind = type(map_.spec).__name__
        if isinstance(map_.spec, Queue):
            raise ctx.error(node, f"{map_.spec.name} is a Queue, which has no keys", "it has push(value) and pop()")
        if isinstance(map_.spec, Array):
            raise ctx.error(node, f"{map_.spec.name} is an Array: its values are there always", "take a HashMap")
        raise ctx.error(
            node,
            f"{map_.spec.name} is {'an' if kind == 'Avg' else 'a'} {kind}: a handler can add to it, not look into it",
            "use a HashMap",
        )
