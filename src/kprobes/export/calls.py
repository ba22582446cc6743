"""Calls and words of the handler language in C: builtins, methods of strings and maps."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kprobes.compiler.front import names, texts
from kprobes.compiler.front.terms import I64_MAX, I64_MIN, U64_MAX, Constant, Literal, Map, Number, Pointer
from kprobes.compiler.ir.nodes import U64
from kprobes.export import expressions
from kprobes.export.cnaming import c_string
from kprobes.export.fetching import argument_in_c
from kprobes.export.headers import integer_text, pointer_text
from kprobes.export.unit import AND, ATOM, UNARY, Expression
from kprobes.model.aggregates import Sum
from kprobes.model.ctype import Struct
from kprobes.model.mapspec import Count, HashMap, Histogram, MapSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.export.unit import Unit

# Words without parameters: their C, the header that it takes, and whether the type is signed.
_WORLD: dict[str, tuple[str, str, bool]] = {
    "now": ("ktime_get_mono_fast_ns()", "linux/timekeeping.h", False),
    "pid": ("(s64)current->tgid", "linux/sched.h", True),
    "tid": ("(s64)current->pid", "linux/sched.h", True),
    "host_pid": ("(s64)current->tgid", "linux/sched.h", True),
    "host_tid": ("(s64)current->pid", "linux/sched.h", True),
    "ns_pid": ("(s64)task_tgid_vnr(current)", "linux/sched.h", True),
    "ns_tid": ("(s64)task_pid_vnr(current)", "linux/sched.h", True),
    "uid": ("(s64)from_kuid(&init_user_ns, current_uid())", "linux/cred.h", True),
    "gid": ("(s64)from_kgid(&init_user_ns, current_gid())", "linux/cred.h", True),
    "cpu": ("(s64)raw_smp_processor_id()", "linux/smp.h", True),
}
_SHOWING = frozenset({"hex", "symbol", "errname", "ipv4", "flags"})
_SWAPS = {"ntohs": "__be16", "htons": "__u16", "ntohl": "__be32", "htonl": "__u32"}


def word_of(unit: Unit, node: ast.expr) -> str:
    """Return the builtin that *node* names, empty if none."""
    if isinstance(node, ast.Call):
        node = node.func
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    if isinstance(node, ast.Attribute) and isinstance(unit.seen.terms.get(node.value), Pointer | Map):
        return ""  # a field
    if not name or (isinstance(node, ast.Name) and name in unit.locals):
        return ""
    given = unit.seen.text.source.names
    return names.word_of(given[name]) if isinstance(node, ast.Name) and name in given else name


def is_word(unit: Unit, node: ast.expr, name: str) -> bool:
    """Return whether *node* is the word *name*, called or bare."""
    return word_of(unit, node) == name and not (isinstance(node, ast.Call) and node.args)


def word(unit: Unit, node: ast.expr, shown: str) -> Expression:
    """Return a word without parameters."""
    name = word_of(unit, node) or shown
    if name in _WORLD:
        text, header, signed = _WORLD[name]
        unit.include(header)
        return Expression(text, UNARY if text.startswith("(") else ATOM, signed=signed)
    if name in ("task", "current"):
        unit.include("linux/sched.h")
        return Expression("current", pointer=True, signed=False)
    if name == "function":
        return Expression(f"(unsigned long){probed(unit)}", UNARY, signed=False)
    if name == "random":
        unit.include("linux/random.h")
        return Expression("(s64)get_random_u32()", UNARY)
    if name == "retval":
        return _typed(unit, node, "regs_return_value(regs)")
    raise unit.refuse(node, f"{shown}")


def probed(unit: Unit) -> str:
    """Return the address of the probe."""
    return "get_kretprobe(ri)->kp.addr" if unit.kind in ("entry", "return") else "p->addr"


def _typed(unit: Unit, node: ast.expr, text: str) -> Expression:
    """Return the word of a register as what *node* is."""
    term = unit.term(node)
    if isinstance(term, Pointer):
        return Expression(expressions.pointer_cast(term, text), UNARY, pointer=True, signed=False)
    if isinstance(term, Number):
        return Expression(typed_number(term, text), UNARY, signed=term.value.type != U64)
    raise unit.refuse(node, "a value of this type")


def typed_number(term: Number, text: str) -> str:
    """Return the word *text* cut to the type that *term* has in C, in 64 bits."""
    if term.kind == "bool":
        return f"(bool){text}"
    wide = "u64" if term.value.type == U64 else "s64"
    if term.store is None or term.store.bits == 64:
        return f"({wide}){text}"
    return f"({wide})({integer_text(term.store.bits // 8, signed=term.store.signed)}){text}"


def call(unit: Unit, node: ast.Call) -> Expression:
    """Return what a call gives.

    Raises:
        CompileError: it has no counterpart.
    """
    if expressions.is_literal(unit, node):
        found = unit.term(node)
        assert isinstance(found, Constant)
        return expressions.literal(found.value)
    if isinstance(node.func, ast.Attribute):
        map_ = map_named(unit, node.func.value)
        if map_ is not None:
            return _map_method(unit, node, map_, node.func.attr)
        owner = unit.seen.terms.get(node.func.value)
        if owner is not None and (isinstance(owner, Pointer) or texts.is_text(owner)):
            return _method(unit, node, node.func)
    name = word_of(unit, node)
    make = _CALLS.get(name)
    if make is not None:
        return make(unit, node)
    if name in _SHOWING:
        return expressions.value(unit, node.args[0])
    if not node.args and not node.keywords and name:
        return word(unit, node, name)
    shown = ast.unparse(node.func)
    raise unit.refuse(node, f"calling {shown}", "write what it does into the handler")


def _method(unit: Unit, node: ast.Call, function: ast.Attribute) -> Expression:
    """Methods of strings that give a truth value, and `.cast()`."""
    name = function.attr
    if name == "cast":
        return _cast_to(unit, node, function.value)
    if name in ("startswith", "endswith") and len(node.args) == 1:
        wanted = unit.term(node.args[0])
        if not isinstance(wanted, Literal):
            raise unit.refuse(node.args[0], f"{name}() of anything but a literal", "compare with each one by itself")
        unit.include("linux/string.h")
        subject, size = expressions.text(unit, function.value), len(wanted.text.encode())
        quoted = c_string(wanted.text)
        if name == "startswith":
            return Expression(f"!strncmp({subject}, {quoted}, {size})", UNARY)
        unit.conditional += 1
        test = f"strlen({subject}) >= {size} && !strcmp({subject} + strlen({subject}) - {size}, {quoted})"
        unit.conditional -= 1
        return Expression(test, AND)
    raise unit.refuse(node, f"the method {name}() here", "give the string a name in a statement of its own")


def string_place(unit: Unit, node: ast.expr) -> tuple[str, str]:
    """Return the address of the string that *node* reads, as a pointer, and the space that it lies in."""
    user = False
    if isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in ("string", "user_string"):
            source, user = function.value, function.attr == "user_string"
        elif word_of(unit, node) in ("string", "user_string") and node.args:
            source, user = node.args[0], word_of(unit, node) == "user_string"
        else:
            raise unit.refuse(node, "this string", "read it from memory: p.string(64)")
    else:
        source = node
    term = unit.term(source)
    found = expressions.value(unit, source)
    space = "user" if user else term.space if isinstance(term, Pointer) else "any"
    text = found.within(UNARY) if found.pointer else f"(void *){found.within(UNARY)}"
    if isinstance(term, Pointer) and found.pointer and "PEEK" not in text and found.binds == ATOM:
        return found.text, space
    return text, space


# Builtins with parameters.


def _argument(unit: Unit, node: ast.Call) -> Expression:
    index = unit.term(node.args[0])
    assert isinstance(index, Constant)
    if unit.kind == "return":
        raise unit.refuse(node, "arg() behind the yield", "name it before: first = arg(1)")
    return _typed(unit, node, argument_in_c(index.value - 1))


def _int(unit: Unit, node: ast.Call) -> Expression:
    found = expressions.number(unit, node.args[0])
    return found if found.signed else Expression(f"(s64){found.within(UNARY)}", UNARY)


def _bool(unit: Unit, node: ast.Call) -> Expression:
    return Expression(f"!!{expressions.truth(unit, node.args[0]).within(UNARY)}", UNARY)


def _abs(unit: Unit, node: ast.Call) -> Expression:
    unit.include("linux/math.h")
    found = expressions.number(unit, node.args[0])
    return Expression(f"abs({found.text})") if found.signed else found


def _extreme(unit: Unit, node: ast.Call) -> Expression:
    term = unit.term(node)
    parts = [expressions.number(unit, one) for one in node.args]
    signed = {
        one.signed for one, where in zip(parts, node.args, strict=True) if not expressions.is_literal(unit, where)
    }
    if len(parts) != 2 or len(signed) > 1 or not isinstance(term, Number):
        raise unit.refuse(node, "min() and max() of this", "two integers of one sign: min(int(a), b)")
    unit.include("linux/minmax.h")
    kind = "s64" if signed.pop() else "u64"
    low, high = (I64_MIN, I64_MAX) if kind == "s64" else (0, U64_MAX)
    for one in node.args:
        found = unit.seen.terms.get(one)
        if isinstance(found, Constant) and not low <= found.value <= high:
            raise unit.refuse(one, "min() and max() with a number of another sign", "numbers that fit the other value")
    return Expression(f"{word_of(unit, node)}_t({kind}, {parts[0].text}, {parts[1].text})", signed=kind == "s64")


def _len(unit: Unit, node: ast.Call) -> Expression:
    term = unit.term(node)
    if isinstance(term, Constant):
        return expressions.literal(term.value)
    unit.include("linux/string.h")
    return Expression(f"(s64)strlen({expressions.text(unit, node.args[0])})", UNARY)


def _swapped(unit: Unit, node: ast.Call) -> Expression:
    name = word_of(unit, node)
    unit.include("linux/in.h")
    given = expressions.number(unit, node.args[0])
    return Expression(f"(s64){name}((__force {_SWAPS[name]}){given.within(UNARY)})", UNARY)


def _deref(unit: Unit, node: ast.Call) -> Expression:
    term = unit.term(node)
    if not isinstance(term, Number):
        raise unit.refuse(node, "deref() of this type", 'an integer: deref(address, "u32")')
    kind = (
        f"{integer_text(term.store.bits // 8, signed=term.store.signed)}"
        if term.store
        else ("u64" if term.value.type == U64 else "s64")
    )
    unit.use("PEEK_ANY")
    source = unit.term(node.args[0])
    space = source.space if isinstance(source, Pointer) else "any"
    reader = {"kernel": "PEEK", "user": "PEEK_USER", "any": "PEEK_ANY"}[space]
    unit.use(reader)
    address = expressions.value(unit, node.args[0]).within(UNARY)
    return Expression(f"{reader}(*({kind} *){address}, fault)", wide=term.store is None, signed=term.value.type != U64)


def _cast(unit: Unit, node: ast.Call) -> Expression:
    return _cast_to(unit, node, node.args[0])


def _cast_to(unit: Unit, node: ast.Call, source: ast.expr) -> Expression:
    term = unit.term(node)
    found = expressions.value(unit, source)
    if isinstance(term, Pointer):
        return Expression(expressions.pointer_cast(term, found.within(UNARY)), UNARY, pointer=True, signed=False)
    if isinstance(term, Number):
        return Expression(typed_number(term, found.within(UNARY)), UNARY, signed=term.value.type != U64)
    raise unit.refuse(node, "this cast")


def _container_of(unit: Unit, node: ast.Call) -> Expression:
    term, member = unit.term(node), unit.term(node.args[2])
    if not isinstance(term, Pointer) or not isinstance(term.target, Struct) or not isinstance(member, Literal):
        raise unit.refuse(node, "this container_of()", 'container_of(p, "struct x", "member")')
    unit.include("linux/container_of.h")
    expressions.need_struct(unit, node, term.target)
    kind = pointer_text(term.target).removesuffix(" *")
    inner = expressions.value(unit, node.args[0]).within(UNARY)
    return Expression(f"container_of((void *){inner}, {kind}, {member.text})", pointer=True, signed=False)


_CALLS: dict[str, Callable[[Unit, ast.Call], Expression]] = {
    "arg": _argument, "int": _int, "bool": _bool, "abs": _abs, "min": _extreme, "max": _extreme, "len": _len,
    "ntohs": _swapped, "htons": _swapped, "ntohl": _swapped, "htonl": _swapped, "deref": _deref, "cast": _cast,
    "container_of": _container_of,
}  # fmt: skip


# Maps.


def map_named(unit: Unit, node: ast.expr) -> Map | None:
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
        out.append(expressions.text(unit, part) if one.kind == "str" else expressions.number(unit, part).text)
    return out


def _map_of(unit: Unit, node: ast.AST, map_: Map) -> str:
    from kprobes.export.storage import MapRefusedError

    try:
        return unit.shared.map_of(map_.spec).name
    except MapRefusedError as refused:
        raise unit.refuse(node, str(refused), "Count, Sum, Histogram, and HashMap of integers are translated") from None


def map_read(unit: Unit, node: ast.Subscript, map_: Map) -> Expression:
    """Return `m[key]`."""
    return _hash_call(unit, node, map_, "get", [*_key(unit, node, map_, node.slice), "0"])


def map_has(unit: Unit, node: ast.AST, map_: Map, key: ast.expr) -> Expression:
    """Return `key in m`."""
    return _hash_call(unit, node, map_, "has", _key(unit, node, map_, key))


def _hash_call(unit: Unit, node: ast.AST, map_: Map, operation: str, arguments: list[str]) -> Expression:
    name = _map_of(unit, node, map_)
    found = unit.shared.map_of(map_.spec)
    if not isinstance(map_.spec, HashMap):
        raise unit.refuse(node, f"reading {map_.spec.name} in a handler", "only a HashMap is read there")
    found.used.add(operation)
    return Expression(f"{name}_{operation}({', '.join(arguments)})", signed=found.value_signed)


def map_write(unit: Unit, node: ast.AST, map_: Map, key: ast.expr, amount: str, *, add: bool) -> None:
    """Write the statement of `m[key] = amount`, or with *add* of `m[key] += amount`."""
    name = _map_of(unit, node, map_)
    operation = "bump" if add else "set"
    arguments = [*_key(unit, node, map_, key), amount]
    _hash_call(unit, node, map_, operation, arguments)
    unit.line(f"if (!{name}_{operation}({', '.join(arguments)}))")
    unit.line("\tfault = true;")


def map_delete(unit: Unit, node: ast.Subscript, map_: Map) -> None:
    """Write the statement of `del m[key]`."""
    found = _hash_call(unit, node, map_, "pop", [*_key(unit, node, map_, node.slice), "0"])
    unit.line(f"{found.text};")


def _map_method(unit: Unit, node: ast.Call, map_: Map, method: str) -> Expression:
    if isinstance(map_.spec, HashMap) and method in ("get", "pop"):
        given = [*node.args, *(one.value for one in node.keywords)]
        default = expressions.number(unit, given[1]).text if len(given) > 1 else "0"
        _map_of(unit, node, map_)
        return _hash_call(unit, node, map_, method, [*_key(unit, node, map_, given[0]), default])
    raise unit.refuse(node, f"{map_.spec.name}.{method}() as a value")


def map_add(unit: Unit, node: ast.Call, map_: Map) -> None:
    """Write the statement of `m.add(...)`."""
    name = _map_of(unit, node, map_)
    found, spec = unit.shared.map_of(map_.spec), map_.spec
    names = ("value", "by", "weight") if isinstance(spec, Histogram) else ("amount", "by")
    given: dict[str, ast.expr] = dict(zip(names, node.args, strict=False))
    given.update(
        {"amount" if one.arg == "value" and isinstance(spec, Sum) else str(one.arg): one.value for one in node.keywords}
    )
    key = _key(unit, node, map_, given.get("by")) if found.key else []
    if isinstance(spec, Histogram):
        sample = expressions.number(unit, given["value"])
        amount = expressions.number(unit, given["weight"]).text if "weight" in given else "1"
        what = found.bucket(sample.text, signed=sample.signed)
        unit.use(*found.helpers)
    elif isinstance(spec, Count | Sum):
        amount = expressions.number(unit, given["amount"]).text if "amount" in given else "1"
        what = ""
    else:
        raise unit.refuse(node, f"a {type(spec).__name__}", "Count, Sum, Histogram and HashMap are translated")
    if not found.key:
        place = f"&{name}[{what}]" if what else f"&{name}"
        unit.line(f"atomic64_inc({place});" if amount == "1" else f"atomic64_add({amount}, {place});")
        return
    found.used.add("add")
    unit.line(f"if (!{name}_add({', '.join([*key, *([what] if what else []), amount])}))")
    unit.line("\tfault = true;")
