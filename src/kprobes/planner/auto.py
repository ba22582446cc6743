"""Handlers for the one-line commands, written as source once the prototype is known.

Fields that begin with an underscore are about the hit itself (`_time`, `_pid`, ...), the others are the probed
function's.
"""

from __future__ import annotations

import keyword

from kprobes.model import words
from kprobes.model.ctype import Array, Enum, Float, Function, Int, Parameter, Pointer, Struct, Void
from kprobes.model.probe import AutoHandler, HandlerSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.model.ctype import CType
    from kprobes.symbols.tracepoint import RecordField

HEAD = "_time=now(), _cpu=cpu(), _pid=pid(), _tid=tid(), _comm=comm()"
# Beyond these a BPF program can't read arguments without walking the stack.
MOST_ARGUMENTS = 6
# Words that the head or an expression needs more than the name of a parameter; of the others the parameter is meant.
WORDS = frozenset(words.WORDS) - {"address_of", "args", "container_of", "flags", "offsetof", "percpu", "sizeof", "var"}


def write_handler(
    auto: AutoHandler,
    *,
    returns: bool,
    prototype: Function | None,
    fields: Sequence[RecordField] = (),
    registers: int = 0,
) -> HandlerSource:
    """Return the source of the handler that *auto* asks for.

    *returns*: the probe sits at a return. *fields* are those of a tracepoint's record instead of a prototype. With
    neither, the first *registers* arguments are shown as they are.
    """
    parameters = _parameters(prototype) if prototype else [_field(field) for field in fields if _is_shown(field)]
    if not parameters and prototype is None:
        parameters = [(f"arg{number}", f"hex(arg({number}))") for number in range(1, registers + 1)]
    named = [name for name, text in parameters if not text.startswith(("arg(", "hex(", "_record."))]
    if fields:
        named.append("**_record")
    lines = [f"def {auto.action}({', '.join(named)}):"]
    if auto.action == "latency":
        lines += ["    _start = now()", "    _returned = yield"]
    elif returns:
        lines += ["    _start = now()", f"    {_result(prototype)} = yield"]
    indent = "    "
    if auto.condition:
        lines.append(f"    if {_one_line(auto.condition)}:")
        indent += "    "
    lines.append(indent + _action(auto, parameters, prototype, returns=returns))
    text = "\n".join(lines) + "\n"
    return HandlerSource(auto.action, text, "<command line>", 1, 0, {"values": auto.values} if auto.values else {})


def write_following(auto: AutoHandler, name: str, arguments: Sequence[str]) -> HandlerSource:
    """Return the source of what *auto* asks for behind a definition, whose event is called *name* and has *arguments*.

    The definition counts as its first line. What it needs itself has names that begin with an underscore.
    """
    lines = ["def definition(regs, retval):"]
    if auto.action == "latency":
        lines += ["    _start = _now()", "    yield"]
    indent = "    "
    if auto.condition:
        lines.append(f"    if {_one_line(auto.condition)}:")
        indent += "    "
    by = f"by={_one_line(auto.by)}" if auto.by else ""
    if auto.action == "trace":
        prints = [f"*_field_{text}" if text in arguments else text for text in map(_one_line, auto.prints)]
        shown = ["*_head", *(prints or ["*_fields"])]
        lines.append(f"{indent}_emit({', '.join([*shown, *(['_stack=_stack_of()'] if auto.stack else [])])})")
    else:
        what = {"latency": f"(_now() - _start) // {auto.divisor}", "count": "1"}
        lines.append(f"{indent}_values.add({what.get(auto.action) or _one_line(auto.prints[0])}{', ' * bool(by)}{by})")
    known = {"_emit": words.WORDS["emit"], "_now": words.WORDS["now"], "_stack_of": words.WORDS["stack"]}
    text = "\n".join(lines) + "\n"
    return HandlerSource(name, text, "<command line>", 2, 0, {**known, "_values": auto.values})


def _action(auto: AutoHandler, parameters: list[tuple[str, str]], prototype: Function | None, *, returns: bool) -> str:
    by = f", by={_one_line(auto.by)}" if auto.by else ""
    if auto.action == "latency":
        return f"values.add((now() - _start) // {auto.divisor}{by})"
    if auto.action == "sample":
        return f"values.add({_one_line(auto.prints[0])}{by})"
    shown = [HEAD]
    if auto.stack:
        shown.append("_stack=stack()")
    if returns:
        shown.append("_duration=now() - _start")
    if auto.prints:
        shown = [", ".join(_one_line(text) for text in auto.prints), *shown]
    elif returns:
        shown += [f"retval={_result(prototype)}"] if not _returns_nothing(prototype) else []
    else:
        shown += [f"{name}={text}" for name, text in parameters]
    return f"emit({', '.join(shown)})"


def _result(prototype: Function | None) -> str:
    return "_returned" if _returns_nothing(prototype) else "retval"


def _returns_nothing(prototype: Function | None) -> bool:
    return prototype is not None and isinstance(prototype.returns, Void)


def _parameters(prototype: Function) -> list[tuple[str, str]]:
    """Return (name, expression) for each parameter that can be read and shown."""
    found = []
    for number, parameter in enumerate(prototype.parameters[:MOST_ARGUMENTS], 1):
        if isinstance(parameter.type, Struct | Array | Float | Void):
            break  # passed in memory or in vector registers: those behind it are not where they seem
        found.append(_parameter(number, parameter))
    return found


def _parameter(number: int, parameter: Parameter) -> tuple[str, str]:
    name = parameter.name
    if not name or keyword.iskeyword(name):
        return (f"{name}_" if name else f"arg{number}", f"arg({number})")
    if name in WORDS:  # as a parameter it would hide the word, which the head needs
        return (name, f"arg({number})")
    return (name, f"{name}.string()" if is_text(parameter.type) else name)


def _field(field: RecordField) -> tuple[str, str]:
    """Return (name, expression) of a tracepoint's field; one that would hide a word is reached through the record."""
    name = field.name
    plain = f"_record.{name}" if name in WORDS or keyword.iskeyword(name) else name
    return (name, f"{plain}.string()" if is_text(field.type) else plain)


def is_text(ctype: CType) -> bool:
    """Return whether *ctype* is a string: `const char *`."""
    return isinstance(ctype, Pointer) and ctype.const and isinstance(ctype.target, Int) and ctype.target.kind == "char"


def _is_shown(field: RecordField) -> bool:
    """Return whether a field of a tracepoint's record can be shown: its own numbers, pointers and text can."""
    if field.is_common:
        return False
    if field.location:
        return field.location == "data" and field.is_string
    return isinstance(field.type, Int | Enum | Pointer) or field.is_string


def _one_line(text: str) -> str:
    return " ".join(text.split())
