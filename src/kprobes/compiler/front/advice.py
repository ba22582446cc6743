"""What to do with a term that stands where another sort is wanted: the hint of many messages."""

from __future__ import annotations

from kprobes.compiler.front.terms import (
    Bound,
    Constant,
    Everything,
    Items,
    Literal,
    Map,
    Nothing,
    Number,
    Outside,
    Pointer,
    RecordArray,
    Text,
    Word,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.front.terms import Term


def advice(term: Term) -> str:
    """Return how *term*, which doesn't fit where it stands, is used."""
    if isinstance(term, Literal | Text) or (isinstance(term, Pointer) and term.count is not None):
        return "strings are compared, sent and used as keys; of arrays name an element: [0]"
    if isinstance(term, Pointer):
        return "name one of its fields" if term.embedded else "name a field, or read what it points to: [0]"
    if isinstance(term, Map):
        return f"look a key up, or read the map where the session is: session[{term.spec.name}]"
    if isinstance(term, Word):
        return "name a register: regs.sp" if term.name == "regs" else f"call it: {term.name}(...)"
    if isinstance(term, Outside):
        return (
            f"name something of it: {term.path}.NAME"
            if isinstance(term.thing, type)
            else f"call it, or what it has: {term.path}"
        )
    if isinstance(term, Number | Constant):
        stack = term.kind in ("stack", "user_stack")
        return "a stack is sent, or a key declared as Stack" if stack else 'numbers become text in log(f"...")'
    return _OTHERS.get(type(term), "write an integer, a string or a pointer")


_OTHERS: dict[type, str] = {
    Items: "name its items one by one: t[0]",
    Nothing: "None is the null pointer; the number is 0",
    Bound: "call it",
    RecordArray: "name an element: [0]",
    Everything: "name one: arguments.count; or send all: emit(**arguments)",
}
