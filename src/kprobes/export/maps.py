"""What handlers do with maps, in C: calls of the functions that each map has (`storage`)."""

from __future__ import annotations

import ast

from kprobes.compiler.front.terms import Map
from kprobes.export import expressions, strings
from kprobes.export.storage import MapInC, MapRefusedError
from kprobes.export.unit import Expression, Unit
from kprobes.model.aggregates import Avg, Max, Min, Sum
from kprobes.model.containers import Array
from kprobes.model.mapspec import Count, HashMap, Histogram, MapSpec

# What is added to these is called their value.
_VALUES = (Sum, Min, Max, Avg)


def named(unit: Unit, node: ast.expr) -> Map | None:
    """Return the map that *node* names, if it is one."""
    term = unit.seen.terms.get(node)
    if isinstance(term, Map):
        return term
    thing = (
        unit.seen.text.source.names.get(node.id) if isinstance(node, ast.Name) and node.id not in unit.locals else None
    )
    return Map(thing, thing.layout(1)) if isinstance(thing, MapSpec) else None


def _key(unit: Unit, node: ast.AST, map_: Map, given: ast.expr | None) -> list[str]:
    """Return the arguments that name a key, by the fields of the map's key."""
    parts = list(given.elts) if isinstance(given, ast.Tuple) else [given] if given is not None else []
    fields = unit.shared.map_of(map_.spec).key
    if len(parts) != len(fields):
        raise unit.refuse(node, f"this key of {map_.spec.name}", "write its parts out: m[a, b]")
    out = []
    for part, one in zip(parts, fields, strict=True):
        assert part is not None
        out.append(strings.text(unit, part) if one.kind == "str" else expressions.number(unit, part).text)
    return out


def _map_of(unit: Unit, node: ast.AST, map_: Map) -> str:

    try:
        return unit.shared.map_of(map_.spec).name
    except MapRefusedError as refused:
        raise unit.refuse(
            node, str(refused), "aggregates, and HashMap and Array of integers of 64 bits, are translated"
        ) from None


def read(unit: Unit, node: ast.Subscript, map_: Map) -> Expression:
    """Return `m[key]`."""
    if isinstance(map_.spec, Array):
        name, index = _map_of(unit, node, map_), expressions.number(unit, node.slice).text
        found = unit.shared.map_of(map_.spec)
        found.used.add("get")
        return Expression(f"{name}_get({index}, {unit.fault_address})", signed=found.value_signed)
    return _hash_call(unit, node, map_, "get", [*_key(unit, node, map_, node.slice), "0"])


def has(unit: Unit, node: ast.AST, map_: Map, key: ast.expr) -> Expression:
    """Return `key in m`."""
    return _hash_call(unit, node, map_, "has", _key(unit, node, map_, key))


def _hash_call(unit: Unit, node: ast.AST, map_: Map, operation: str, arguments: list[str]) -> Expression:
    name = _map_of(unit, node, map_)
    found = unit.shared.map_of(map_.spec)
    if not isinstance(map_.spec, HashMap):
        raise unit.refuse(node, f"reading {map_.spec.name} in a handler", "only a HashMap is read there")
    found.used.add(operation)
    unit.acts |= operation in ("set", "bump", "pop")
    return Expression(f"{name}_{operation}({', '.join(arguments)})", signed=found.value_signed)


def write(unit: Unit, node: ast.AST, map_: Map, key: ast.expr, amount: str, *, add: bool) -> None:
    """Write the statement of `m[key] = amount`, or with *add* of `m[key] += amount`."""
    name = _map_of(unit, node, map_)
    operation = "bump" if add else "set"
    if isinstance(map_.spec, Array):
        arguments = [expressions.number(unit, key).text, amount]
        unit.shared.map_of(map_.spec).used.add(operation)
        unit.acts = True
    else:
        arguments = [*_key(unit, node, map_, key), amount]
        _hash_call(unit, node, map_, operation, arguments)
    unit.fail(f"!{name}_{operation}({', '.join(arguments)})")


def delete(unit: Unit, node: ast.Subscript, map_: Map) -> None:
    """Write the statement of `del m[key]`."""
    found = _hash_call(unit, node, map_, "pop", [*_key(unit, node, map_, node.slice), "0"])
    unit.line(f"{found.text};")


def method(unit: Unit, node: ast.Call, map_: Map, name: str) -> Expression:
    """Return `m.name(...)` as a value."""
    if isinstance(map_.spec, HashMap) and name in ("get", "pop"):
        given = [*node.args, *(one.value for one in node.keywords)]
        default = expressions.number(unit, given[1]).text if len(given) > 1 else "0"
        _map_of(unit, node, map_)
        return _hash_call(unit, node, map_, name, [*_key(unit, node, map_, given[0]), default])
    raise unit.refuse(node, f"{map_.spec.name}.{name}() as a value")


def add(unit: Unit, node: ast.Call, map_: Map) -> None:
    """Write the statement of `m.add(...)`."""
    name = _map_of(unit, node, map_)
    unit.acts = True
    found, spec = unit.shared.map_of(map_.spec), map_.spec
    names = ("value", "by", "weight") if isinstance(spec, Histogram) else ("amount", "by")
    given: dict[str, ast.expr] = dict(zip(names, node.args, strict=False))
    given.update(
        {
            "amount" if one.arg == "value" and isinstance(spec, _VALUES) else str(one.arg): one.value
            for one in node.keywords
        }
    )
    key = _key(unit, node, map_, given.get("by")) if found.key else []
    if isinstance(spec, Histogram):
        sample = expressions.number(unit, given["value"])
        amount = expressions.number(unit, given["weight"]).text if "weight" in given else "1"
        assert isinstance(found, MapInC)
        what = found.bucket(sample.text, signed=sample.signed)
        unit.use(*found.helpers)
    elif isinstance(spec, Min | Max):
        amount, what = _within_s64(unit, given["amount"]), ""
    elif isinstance(spec, Count | Sum | Avg):
        amount = expressions.number(unit, given["amount"]).text if "amount" in given else "1"
        what = ""
    else:
        raise unit.refuse(node, f"a {type(spec).__name__}", "Count, Sum, Min, Max, Avg and Histogram are translated")
    if not found.key:
        if isinstance(spec, Min | Max | Avg):
            unit.line(f"{name}_add({amount});")
            return
        place = f"&{name}[{what}]" if what else f"&{name}"
        unit.line(f"atomic64_inc({place});" if amount == "1" else f"atomic64_add({amount}, {place});")
        return
    found.used.add("add")
    unit.fail(f"!{name}_add({', '.join([*key, *([what] if what else []), amount])})")


def _within_s64(unit: Unit, node: ast.expr) -> str:
    """Return *node* as a signed integer; what is above the largest counts as that."""
    found = expressions.number(unit, node)
    if found.signed:
        return found.text
    unit.include("linux/limits.h", "linux/minmax.h")
    return f"min_t(u64, {found.text}, S64_MAX)"
