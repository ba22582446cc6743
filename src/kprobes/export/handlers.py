"""A probe of a script as parts of a module: its handler, translated from Python to C.

The compiler's front checks the handler and finds the types; what is written in C follows its text, statement by
statement. What crosses a `yield` is kept in a struct: kretprobe's `ri->data`, or for an instruction's two halves a
per-CPU variable, since nothing comes between them.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kprobes.compiler.front.abi import integer_indexes
from kprobes.compiler.front.compile import Seen, Surroundings, compile_handler
from kprobes.compiler.front.scan import count_stores, is_yield, names_read, yields
from kprobes.compiler.front.terms import Number, Pointer
from kprobes.compiler.front.variables import variable_for
from kprobes.errors import UsageError
from kprobes.export import calls, statements, variables
from kprobes.export.cnaming import comment_text
from kprobes.export.fetching import MOST_STACK, argument_in_c
from kprobes.export.headers import pointer_text
from kprobes.export.part import Part, PlaceInC
from kprobes.export.unit import Unit
from kprobes.frozen import dataclass
from kprobes.model.probe import HandlerSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.export.unit import Shared
    from kprobes.model.ctype import Types
    from kprobes.model.mapspec import MapSpec
    from kprobes.model.probe import Probe
    from kprobes.planner.group import Group
    from kprobes.planner.places import Places

MOST_PLACES = 256
_HEADS = {
    "pre": "static int {name}(struct kprobe *p, struct pt_regs *regs)",
    "post": "static void {name}(struct kprobe *p, struct pt_regs *regs, unsigned long flags)",
    "entry": "static int {name}(struct kretprobe_instance *ri, struct pt_regs *regs)",
    "return": "static int {name}(struct kretprobe_instance *ri, struct pt_regs *regs)",
}
_SITES = {
    "pre": "struct site *site = container_of(p, struct site, probe);",
    "return": "struct return_site *site = site_of(ri);",
}
_SITES["post"], _SITES["entry"] = _SITES["pre"], _SITES["return"]


@dataclass(frozen=True, slots=True)
class Half:
    """One function to be written: which *kind* of handler it is, and its statements."""

    kind: str
    body: list[ast.stmt]


def probe_parts(
    probe: Probe, groups: Sequence[Group], places: Places, shared: Shared, specs: dict[str, MapSpec]
) -> list[Part]:
    """Return *probe* in C, a part for each of *groups*.

    Raises:
        CompileError: its handler is outside the language, or has no counterpart in C.
        UsageError: it is no probe of a kernel's function.
    """
    if probe.kind not in ("kprobe", "kretprobe"):
        hint = {"tracepoint": "probe the function that has it"}.get(probe.kind, "kprobes run takes them")
        raise UsageError(f"a module registers kprobes and kretprobes, not a {probe.kind}", hint=hint)
    if sum(len(group.sites) for group in groups) > MOST_PLACES:
        raise UsageError(f"{probe.places[0]} stands for more than {MOST_PLACES} functions", hint="name those you mean")
    if not isinstance(probe.handler, HandlerSource):
        raise UsageError("this probe has no handler", hint="a definition counts, too: p:NAME FUNCTION")
    return [_Writer(probe, group, places, shared, specs).part() for group in groups]


class _Writer:
    """Writes the part of one group."""

    def __init__(self, probe: Probe, group: Group, places: Places, shared: Shared, specs: dict[str, MapSpec]) -> None:
        assert isinstance(probe.handler, HandlerSource)
        self._probe = probe
        self._group = group
        self._shared = shared
        self._types: Types = group.types or places.types_for(probe.kind)
        self._seen = Seen()
        pair = probe.kind == "kprobe" and "yield" in probe.handler.text
        surroundings = Surroundings(
            kind=probe.kind,
            types=self._types,
            prototype=group.prototype,
            untyped=group.untyped,
            at_entry=group.at_entry,
            settings=probe.settings,
            steps=pair,
            variables=places.variables_for(probe.kind, group.sites),
        )
        compile_handler(probe.handler, surroundings, specs, seen=self._seen)
        self._definition = self._seen.text.definition
        arguments = self._definition.args
        self._parameters = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        self._name = shared.names.new(probe.handler.name)
        self._crossing: dict[str, str] = {}  # declarations of the struct's fields
        self._fields: dict[str, str] = {}  # what they are called, by the name in Python
        self._includes: list[str] = []
        self._helpers: list[str] = []

    def part(self) -> Part:
        """Return the part."""
        name, is_return = self._name, self._probe.kind == "kretprobe"
        result, halves = self._halves()
        functions = "".join(self._function(half, result) for half in halves)
        data = ""
        if self._crossing:
            fields = "".join(f"\t{field};\n" for field in self._crossing.values())
            data = f"/* What is kept from the first to the second half. */\nstruct {name}_call {{\n{fields}}};\n"
            if not is_return:
                data += f"static DEFINE_PER_CPU(struct {name}_call, {name}_calls);\n"
                self._includes.append("linux/percpu.h")
        kinds = {half.kind: f"{name}_{half.kind}" for half in halves}
        title = f"@{self._probe.kind} {', '.join(self._probe.places)}: {self._seen.text.source.name}()"
        return Part(
            name=name,
            title=title,
            places=tuple(
                self._place(site.module, site.symbol, site.offset, site.address) for site in self._group.sites
            ),
            functions=f"{self._source()}{functions.rstrip()}\n",
            is_return=is_return,
            pre=kinds.get("pre", ""),
            post=kinds.get("post", ""),
            entry=kinds.get("entry", ""),
            handler=kinds.get("return", ""),
            data_size=f"sizeof(struct {name}_call)" if data and is_return else "",
            maxactive=self._probe.maxactive,
            declarations=data,
            includes=tuple(dict.fromkeys(self._includes)),
            helpers=tuple(dict.fromkeys(self._helpers)),
        )

    @staticmethod
    def _place(module: str, symbol: str, offset: int, address: int) -> PlaceInC:
        return PlaceInC(f"{module}:{symbol}" if module else symbol, offset, 0 if symbol else address)

    def _source(self) -> str:
        lines = [f" * {comment_text(line)}".rstrip() for line in self._seen.text.source.text.rstrip().splitlines()]
        return "/*\n" + "\n".join(lines) + "\n */\n"

    def _halves(self) -> tuple[ast.stmt | None, list[Half]]:
        """Return the statement that yields, and the functions that the handler becomes."""
        body = self._definition.body
        is_return = self._probe.kind == "kretprobe"
        found = yields(body)
        at = next((index for index, one in enumerate(body) if is_yield(one)), None)
        if found and at is None:
            raise self._seen.text.error(
                found[0],
                "a yield inside of another statement: a kernel module in C doesn't have it",
                "put it on the top level of the handler; leave before it with `if ...: return`",
            )
        if at is None:
            self._cross(body if is_return else [], [])
            first = [Half("entry", [])] if self._crossing else []
            return None, [*first, Half("return", body)] if is_return else [Half("pre", body)]
        before, after = body[:at], body[at + 1 :]
        self._cross(after, before)
        kinds = ("entry", "return") if is_return else ("pre", "post")
        halves = [Half(kinds[0], before)] if before or self._crossing or not is_return else []
        return body[at], [*halves, Half(kinds[1], after)]

    def _cross(self, after: list[ast.stmt], before: list[ast.stmt]) -> None:
        """Find what *after* needs of the first half."""
        read = names_read(after)
        made = count_stores(before)
        unit = Unit(self._seen, self._shared, self._types, self._group.prototype, "entry")
        for name in dict.fromkeys([*self._parameters, *made]):
            if name not in read or name in ("regs", "retval"):
                continue
            field = self._fields[name] = unit.names.new(name)
            if name in made or name in count_stores(after):
                value = self._value_of(name, before)
                variable = variables.variable_of(unit, name, value)
                self._crossing[name] = variables.declaration(unit, variable, field, self._definition)
            else:
                self._crossing[name] = self._parameter_declaration(name, field, after)

    @staticmethod
    def _value_of(name: str, body: list[ast.stmt]) -> ast.expr | None:
        for one in (node for statement in body for node in ast.walk(statement)):
            if isinstance(one, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in one.targets):
                return one.value
        return None

    def _term_of(self, name: str, body: Sequence[ast.AST]) -> Pointer | Number | None:
        for statement in body:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and node.id == name:
                    term = self._seen.terms.get(node)
                    if isinstance(term, Pointer | Number):
                        return term
        return None

    def _parameter_declaration(self, name: str, local: str, body: Sequence[ast.AST]) -> str:
        term = self._term_of(name, body)
        if isinstance(term, Pointer):
            return f"{pointer_text(term.target)}{local}"
        unit = Unit(self._seen, self._shared, self._types, self._group.prototype, "entry")
        return variables.declaration(unit, variable_for(term) if term else None, local, self._definition)

    def _argument(self, name: str) -> str:
        """Return where the parameter *name* lies at the entry."""
        prototype = self._group.prototype
        if prototype is None:
            return argument_in_c(self._parameters.index(name))
        names = [one.name for one in prototype.parameters]
        if name not in names:  # the n-th of a handler with annotations is the n-th argument
            return argument_in_c(self._parameters.index(name))
        index = integer_indexes(prototype, self._types)[names.index(name)]
        if index is None:
            raise self._seen.text.error(self._definition, f"where {name} lies can't be told", "read it from regs")
        return argument_in_c(index)

    def _word(self, text: str, name: str, body: Sequence[ast.AST]) -> str:
        """Return the word *text* with the type that *name* has."""
        term = self._term_of(name, body)
        if isinstance(term, Pointer):
            return f"({pointer_text(term.target)}){text}"
        return calls.typed_number(term, text) if term is not None else text

    # Functions.

    def _function(self, half: Half, result: ast.stmt | None) -> str:
        unit = Unit(self._seen, self._shared, self._types, self._group.prototype, half.kind)
        first = half.kind in ("pre", "entry")
        for name, field in self._fields.items():
            unit.locals[name] = f"call->{field}"
        if first:
            self._take_parameters(unit, half)
        else:
            self._take_result(unit, half, result)
        statements.run(unit, half.body)
        self._includes += unit.includes
        self._helpers += unit.helpers
        return self._assembled(unit, half)

    def _take_parameters(self, unit: Unit, half: Half) -> None:
        everything = self._definition.body
        read = names_read(half.body)
        for name in self._parameters:
            if name in ("regs", "retval"):
                continue
            if name in self._crossing:
                unit.line(f"call->{self._fields[name]} = {self._word(self._argument(name), name, everything)};")
            elif name in read:
                word = self._word(self._argument(name), name, everything)
                local = unit.local(name)
                unit.declare(f"{self._local_declaration(unit, name, local, everything)} = {word};")
                unit.locals[name] = local

    def _local_declaration(self, unit: Unit, name: str, local: str, body: Sequence[ast.AST]) -> str:
        variable = unit.seen.variable(name)
        if variable is not None:
            return variables.declaration(unit, variable, local, self._definition)
        return self._parameter_declaration(name, local, body)

    def _take_result(self, unit: Unit, half: Half, result: ast.stmt | None) -> None:
        if result is None or isinstance(result, ast.Expr):
            return
        assert isinstance(result, ast.Assign | ast.AnnAssign)
        target = result.targets[0] if isinstance(result, ast.Assign) else result.target
        if not isinstance(target, ast.Name):
            raise unit.refuse(target, "unpacking the result", "ret = yield")
        if target.id in names_read(half.body):
            local = unit.local(target.id)
            word = self._word("regs_return_value(regs)", target.id, half.body)
            unit.declare(f"{self._local_declaration(unit, target.id, local, half.body)} = {word};")
            unit.locals[target.id] = local

    def _assembled(self, unit: Unit, half: Half) -> str:
        """Return the text of the function."""
        name = f"{self._name}_{half.kind}"
        text = "\n".join([*unit.declared, *unit.body])
        faulty = "fault" in text
        counts = half.kind in ("pre", "return")
        ignores = half.kind == "entry" and unit.needs_out
        lines = [_SITES[half.kind]] if faulty or counts or ignores or "site" in unit.context else []
        checks = ["\tif (!site)", "\t\treturn 0;"] if lines and half.kind in ("entry", "return") else []
        if self._crossing and "call->" in text:
            place = "(void *)ri->data" if half.kind in ("entry", "return") else f"this_cpu_ptr(&{self._name}_calls)"
            lines.append(f"struct {self._name}_call *call = {place};")
        lines += ["bool fault = false;"] if faulty else []
        lines += ["int ignored = 0;"] if ignores else []
        lines += unit.declared
        self._check_stack(lines, unit.called_stack)
        out = [_HEADS[half.kind].format(name=name), "{", *(f"\t{line}" for line in lines)]
        out += [""] if lines else []
        out += checks
        out += ["\tatomic64_inc(&site->hits);"] if counts else []
        out += [*unit.body, *(["out:"] if unit.needs_out else [])]
        out += ["\tif (ignored)", "\t\tatomic64_inc(&site->hits);"] if ignores else []
        out += ["\tif (fault)", "\t\tatomic64_inc(&site->faults);"] if faulty else []
        if half.kind != "post":
            out.append("\treturn ignored;" if ignores else "\treturn 0;")
        elif unit.needs_out and not faulty:
            out.append("\treturn;")
        out.append("}")
        out += [f"NOKPROBE_SYMBOL({name});"] if half.kind in ("entry", "return") else []
        return "\n".join(out) + "\n\n"

    def _check_stack(self, lines: list[str], called: int) -> None:
        import re

        sizes = [int(found[1]) for line in lines if (found := re.match(r"char \w+\[(\d+)\];", line))]
        total = sum(sizes) + called
        if total > MOST_STACK:
            what = f"strings of {total} bytes: a handler in a module has {MOST_STACK} bytes of the kernel's stack"
            raise self._seen.text.error(self._definition, what, "read shorter ones: .string(32)")
