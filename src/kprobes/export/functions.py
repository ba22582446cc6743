"""Functions that handlers call, in C: static ones, each written once for the types and constants it is called with.

What a handler has (`regs`, `p`, `site`) and the flag for faults are handed on where the text of one names them.
"""

from __future__ import annotations

import ast
import re

from kprobes.compiler.front import texts
from kprobes.compiler.front.scan import count_stores
from kprobes.compiler.front.terms import Constant, Literal, Nothing, Number, Pointer, Term, Text
from kprobes.compiler.front.variables import TextVariable
from kprobes.compiler.ir.nodes import U64
from kprobes.export import constants, expressions, maps, statements, strings, variables
from kprobes.export.cnaming import comment_text
from kprobes.export.headers import pointer_text
from kprobes.export.unit import Expression, Unit
from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.front.context import Seen

# Stands for a function's name until it is known that no other one has the same text.
_NAMELESS = "\0"
_CONTEXT = {"p": "struct kprobe *p", "site": "struct return_site *site", "regs": "struct pt_regs *regs"}
_BUFFER = re.compile(r"char \w+\[(\d+)\];")
TEXT = "text"


@dataclass(frozen=True, slots=True)
class FunctionInC:
    """A finished function.

    *result* is its type; `text` where it writes a string into the buffer that its first argument names. *hands* are the
    words of the caller that it takes behind its arguments; *stack* is what its strings take, *acts* is that of
    `Unit`.
    """

    name: str
    text: str
    result: str
    hands: tuple[str, ...]
    stack: int
    acts: bool
    includes: tuple[str, ...]
    helpers: tuple[str, ...]


class _Function(Unit):
    """A function that a handler calls, in the making: the flag for faults is its caller's."""

    fault = "*fault"
    fault_address = "fault"

    def __init__(self, outer: Unit, seen: Seen, call: ast.Call) -> None:
        super().__init__(seen, outer.shared, outer.types, outer.prototype, outer.kind)
        self.title = outer.title
        self.way = (outer.seen.text.call_at(call, seen.text.source.name), *outer.way)
        self.result = _result_type(outer, call)


def call(unit: Unit, node: ast.Call) -> Expression:
    """Return the call *node* of a function of the user's as a value.

    Raises:
        CompileError: the function, or this use of it, has no counterpart in C.
    """
    made, arguments = _called(unit, node)
    if made.result == TEXT:
        raise unit.refuse(node, "a string from a function here", "give it a name in a statement before")
    if made.result == "void":
        raise unit.refuse(node, "a value from a function that returns none")
    text = f"{made.name}({', '.join(arguments)})"
    term = unit.seen.terms.get(node)
    return Expression(text, signed=made.result != "u64", pointer=isinstance(term, Pointer))


def fill(unit: Unit, node: ast.Call, buffer: str) -> None:
    """Write the statement that has a function put its string into *buffer*."""
    made, arguments = _called(unit, node)
    unit.line(f"{made.name}({', '.join([buffer, *arguments])});")


def run(unit: Unit, node: ast.Call) -> None:
    """Write the call *node* as a statement."""
    made, arguments = _called(unit, node)
    if made.result == TEXT:
        unused = unit.local("unused")
        unit.declare(f"char {unused}[{texts.size_of(unit.term(node))}];")
        arguments.insert(0, unused)
    unit.line(f"{made.name}({', '.join(arguments)});")


def leave(unit: Unit, node: ast.Return) -> None:
    """Write `return` in a function."""
    if unit.result in (None, "void") or node.value is None:
        unit.line("return;")
    elif unit.result == TEXT:
        size = texts.size_of(unit.term(node.value))
        strings.fill(unit, node.value, "result", str(size))
        unit.line("return;")
    else:
        make = expressions.value if str(unit.result).endswith("*") else expressions.number
        unit.line(f"return {make(unit, node.value).text};")


def _called(unit: Unit, node: ast.Call) -> tuple[FunctionInC, list[str]]:
    """Return the function that *node* calls, and the arguments of the call."""
    seen = unit.seen.calls[node]
    inner = _Function(unit, seen, node)
    declarations, arguments = _parameters(unit, inner, node)
    made = _written(inner, declarations)
    if made.acts and not _is_alone(unit, node):
        hint = "give what it returns a name in a statement before: C doesn't say which side it computes first"
        raise unit.refuse(node, "calling what changes something beside something else that sees it", hint)
    unit.context.update(made.hands)
    unit.called[made.name] = made
    unit.acts |= made.acts
    return made, [*arguments, *(unit.fault_address if one == "fault" else one for one in made.hands)]


# Parameters.


def _parameters(unit: Unit, inner: _Function, node: ast.Call) -> tuple[list[str], list[str]]:
    """Return the declarations of the parameters that C needs, and the arguments for them; the others are constants,
    maps and the like, which the text of the function has in their place."""
    definition = inner.seen.text.definition
    spec = definition.args
    names = [one.arg for one in (*spec.posonlyargs, *spec.args)]
    given: dict[str, ast.expr] = dict(zip(names, node.args, strict=False))
    given.update({str(one.arg): one.value for one in node.keywords})
    stored = count_stores(definition.body)
    declarations, arguments = [], []
    for name, term in inner.seen.bound.items():
        where = given.get(name)
        if where is not None and constants.is_open(unit, where):
            inner.unsettled.add(name)
        elif name not in stored and not isinstance(term, Number | Pointer | Text):
            continue
        declarations.append(_declared(inner, name, term, is_stored=name in stored))
        arguments.append(_argument(unit, where, term, is_text=strings.is_string(term) and name in stored))
    return declarations, arguments


def _declared(inner: _Function, name: str, term: Term, *, is_stored: bool) -> str:
    """Return the declaration of the parameter *name*, and let the text of the function know it."""
    local = inner.locals[name] = inner.local(name)
    variable = inner.seen.variable(name) if is_stored else None
    if isinstance(variable, TextVariable):  # it is assigned to: what is given stays as it is
        source = inner.local(f"{name}_given")
        inner.declare(f"char {local}[{variable.size}];")
        inner.line(f"strscpy_pad({local}, {source}, sizeof({local}));")
        inner.include("linux/string.h")
        return f"const char *{source}"
    if variable is not None:
        return variables.declaration(inner, variable, local, inner.seen.text.definition)
    if isinstance(term, Pointer):
        return f"{pointer_text(term.target)}{local}"
    if isinstance(term, Text | Literal):
        return f"const char *{local}"
    if isinstance(term, Number | Constant):
        return f"{'u64' if isinstance(term, Number) and term.value.type == U64 else 's64'} {local}"
    raise inner.refuse(inner.seen.text.definition, f"what {name} is given here", "integers, pointers, strings and maps")


def _argument(unit: Unit, node: ast.expr | None, term: Term, *, is_text: bool) -> str:
    if node is None:  # a default, which is assigned to
        if isinstance(term, Literal):
            from kprobes.export.cnaming import c_string

            return c_string(term.text)
        return constants.literal(term.value).text if isinstance(term, Constant) else "NULL"
    if is_text or isinstance(term, Text | Literal):
        return strings.text(unit, node)
    if isinstance(term, Pointer | Nothing):
        return expressions.value(unit, node).text
    return expressions.number(unit, node).text


# Text.


def _written(inner: _Function, declarations: list[str]) -> FunctionInC:
    """Return the function, written now unless one with the same text is there."""
    definition = inner.seen.text.definition
    statements.run(inner, definition.body)
    if inner.body and inner.body[-1] == "\treturn;":
        inner.body.pop()
    lines = [*inner.declared, *inner.body]
    buffers = sum(int(found[1]) for line in inner.declared if (found := _BUFFER.fullmatch(line)))
    hands = tuple(one for one in _CONTEXT if one in inner.context)
    hands += ("fault",) if any(re.search(r"\bfault\b", line) for line in lines) else ()
    head = ["char *result"] if inner.result == TEXT else []
    head += [*declarations, *(_CONTEXT.get(one, "bool *fault") for one in hands)]
    kind = "void" if inner.result == TEXT else str(inner.result)
    space = "" if kind.endswith("*") else " "
    text = "\n".join(
        [
            _comment(inner),
            f"static {kind}{space}{_NAMELESS}({', '.join(head) or 'void'})",
            "{",
            *(f"\t{line}" for line in inner.declared),
            *([""] if inner.declared else []),
            *inner.body,
            "}\n",
        ]
    )
    known = inner.shared.functions.get(text)
    if known is None:
        name = inner.shared.names.new(definition.name)
        known = inner.shared.functions[text] = FunctionInC(
            name, text.replace(_NAMELESS, name), str(inner.result), hands, inner.called_stack + buffers, inner.acts,
            tuple(dict.fromkeys(inner.includes)), tuple(dict.fromkeys(inner.helpers)),
        )  # fmt: skip
    return known


def _comment(inner: _Function) -> str:
    lines = [f" * {comment_text(line)}".rstrip() for line in inner.seen.text.source.text.rstrip().splitlines()]
    return "/*\n" + "\n".join(lines) + "\n */"


def _result_type(unit: Unit, node: ast.Call) -> str:
    """Return the type of C that the call *node* has."""
    term = unit.seen.terms.get(node)
    if isinstance(term, Number):
        return "u64" if term.value.type == U64 else "s64"
    if isinstance(term, Constant):
        return "s64" if constants.literal(term.value).signed else "u64"
    if strings.is_string(term):
        return TEXT
    if isinstance(term, Pointer):
        return pointer_text(term.target)
    if term is None or isinstance(term, Nothing):
        return "void"
    raise unit.refuse(node, "a function that returns this", "return an integer, a pointer or a string")


# Order.


def _is_alone(unit: Unit, node: ast.Call) -> bool:
    """Return whether nothing of the statement that *node* stands in sees, or adds to, what a call of it changes; or
    C computes it in the same order as Python."""
    statement = unit.statement
    if statement is None or node in _sequenced(_root(statement)):
        return True
    inside = set(ast.walk(node))
    others = (one for one in _parts(statement) if one not in inside or one is node)
    return sum(one in unit.seen.calls or _looks_into_map(unit, one) for one in others) == 1


def _root(statement: ast.stmt) -> ast.expr | None:
    """Return the expression that a statement computes first."""
    found = getattr(statement, "test", None) or getattr(statement, "iter", None) or getattr(statement, "value", None)
    return found if isinstance(found, ast.expr) else None


def _parts(statement: ast.stmt) -> list[ast.AST]:
    root = _root(statement)
    targets = [*getattr(statement, "targets", []), getattr(statement, "target", None)]
    return [node for one in (root, *targets) if one is not None for node in ast.walk(one)]


def _sequenced(root: ast.expr | None) -> set[ast.expr]:
    """Return the parts of *root* that are computed one after the other: its own value, sides of `and` and `or`."""
    if root is None:
        return set()
    found = {root}
    if isinstance(root, ast.BoolOp):
        for one in root.values:
            found |= _sequenced(one)
    elif isinstance(root, ast.UnaryOp):
        found |= _sequenced(root.operand)
    elif isinstance(root, ast.IfExp):
        found |= _sequenced(root.test) | _sequenced(root.body) | _sequenced(root.orelse)
    return found


def _looks_into_map(unit: Unit, node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and maps.named(unit, node) is not None
