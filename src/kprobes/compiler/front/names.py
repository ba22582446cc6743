"""What a name outside the handler means: constants, maps, helper functions, modules, the language's words."""

from __future__ import annotations

import builtins as python
from types import FunctionType, ModuleType

from kprobes.compiler.front.builtins import PYTHON
from kprobes.compiler.front.terms import Constant, Items, Literal, Nothing, Outside, Term, Word
from kprobes.compiler.front.text import did_you_mean, nearest
from kprobes.model.builtins import BUILTINS
from kprobes.model.cwords import ArrayOf, CWord, PointerTo
from kprobes.model.mapspec import MapSpec
from kprobes.model.probe import Probe
from kprobes.model.registered import Instance, Registered
from kprobes.model.setting import Setting
from kprobes.model.words import Word as ImportedWord

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast

    from kprobes.compiler.front.context import Context
    from kprobes.errors import CompileError

# Functions of Python's `socket` that handlers know too.
SOCKET = frozenset({"ntohs", "ntohl", "htons", "htonl"})

# What to write in place of things that Python programmers reach for first.
INSTEAD = {
    "print": 'use emit(...) for values or log(f"...") for a line of text',
    "open": "handlers can't do I/O: send events with emit() and write files where you read them",
    "str": 'strings come from .string(), comm() and literals; show values in log(f"...")',
    "float": "handlers compute with integers only",
    "list": "collect in a HashMap, or send events with emit()",
    "dict": "use a HashMap, declared outside of the handler",
    "set": "use a HashMap, declared outside of the handler",
    "sum": "add in a loop, or use a Count",
    "sorted": "sort where you read the events",
    "enumerate": "use for i in range(bound)",
    "zip": "use for i in range(bound)",
    "isinstance": "types are known when the handler is compiled",
    "type": "types are known when the handler is compiled",
    "round": "handlers compute with integers only: use //",
    "pow": "use * or a shift",
    "divmod": "use // and %",
}
SELF_HINT = "a handler is no method: keep what lasts in a HashMap, Count or Histogram"
MODULE_INSTEAD = {
    "time": "use now(), in ns",
    "os": "use the builtins pid, tid, uid, gid, cpu, comm",
    "random": "use random()",
    "math": "handlers compute with integers only",
    "struct": 'use deref(address, "u32")',
}


def outside(ctx: Context, node: ast.AST, name: str) -> Term:
    """Return the term of *name*, which is no local of the handler.

    Raises:
        CompileError: nothing is called so, or handlers can't use it.
    """
    frame = ctx.frame
    if name in frame.names:
        return of_object(ctx, node, frame.names[name], name)
    if name in BUILTINS:
        return Word(name)
    if hasattr(python, name):
        raise ctx.error(
            node,
            f"Python's {name} can't be used in a handler",
            INSTEAD.get(name, f"of Python's own functions handlers know {', '.join(sorted(PYTHON))}"),
        )
    value = ctx.around.types.enumerator(name)
    if value is not None:
        return Constant(value)
    error = ctx.error(node, f"nothing is called {name!r} here", _nearest_name(ctx, name))
    ctx.mistakes.poison(frame.scope + name)  # told once
    raise error


def _nearest_name(ctx: Context, name: str) -> str:
    frame = ctx.frame
    known = {*frame.stores, *frame.bindings, *BUILTINS, *(key for key in frame.names if not key.startswith("__"))}
    parameters = ctx.parameters.names() if len(ctx.frames) == 1 else []
    if name in parameters:
        return f"{name} is a parameter of the probed function: take it as a parameter of the handler"
    return did_you_mean(
        name,
        [*known, *parameters],
        SELF_HINT if name == "self" else "handlers see their locals, module-level names and the builtins",
    )


def of_object(ctx: Context, node: ast.AST, thing: object, path: str) -> Term:
    """Return the term of the Python object *thing*, called *path*.

    Raises:
        CompileError: handlers can't use such an object.
    """
    if isinstance(thing, bool):
        return Constant(int(thing), "bool")
    if isinstance(thing, int):
        return Constant(int(thing))
    if isinstance(thing, str):
        return Literal(str(thing))
    if thing is None:
        return Nothing()
    if isinstance(thing, tuple):
        return Items(tuple(of_object(ctx, node, item, f"{path}[{i}]") for i, item in enumerate(thing)))
    if isinstance(thing, MapSpec):
        return ctx.use_map(node, thing)
    if isinstance(thing, Setting):
        value = dict(ctx.around.settings).get(thing.name, thing.default)
        return of_object(ctx, node, thing.checked(value), path)
    word = word_of(thing)
    if word:
        return Word(word)
    if isinstance(thing, FunctionType | ModuleType | type | CWord | ArrayOf | PointerTo | Registered | Instance):
        return Outside(thing, path)
    raise _unusable(ctx, node, thing, path)


def word_of(thing: object) -> str:
    """Return the word of the language that the Python object *thing* stands for, empty if none."""
    if isinstance(thing, ImportedWord):
        return thing.__name__
    if getattr(thing, "__module__", "") == "builtins":
        name = getattr(thing, "__name__", "")
        return name if name in PYTHON and getattr(python, name, None) is thing else ""
    if getattr(thing, "__module__", "") == "_socket" and getattr(thing, "__name__", "") in SOCKET:
        return str(getattr(thing, "__name__", ""))
    return ""


def _unusable(ctx: Context, node: ast.AST, thing: object, path: str) -> CompileError:
    kind = type(thing).__name__
    hint = "handlers see ints, strings, tuples of them, maps and functions"
    if isinstance(thing, float):
        hint = "handlers compute with integers only"
    elif isinstance(thing, list | set | frozenset | dict):
        hint = "make it a tuple, or a HashMap for what changes while the handler runs"
    elif isinstance(thing, Probe):
        hint = "a handler can't be called; move what both need into a plain function without decorator"
    elif callable(thing):
        hint = "only plain functions, written with def, can be called"
    return ctx.error(node, f"{path} is a Python {kind}, which a handler can't use", hint)


def attribute(ctx: Context, node: ast.AST, owner: Outside, name: str) -> Term:
    """Return `owner.name` for a module or class: a constant, an enum member, a function.

    Raises:
        CompileError: it has no such attribute, or none that handlers can use.
    """
    path = f"{owner.path}.{name}"
    if isinstance(owner.thing, FunctionType):
        raise ctx.error(node, f"{owner.path} is a function, it has no values", "call it")
    try:
        thing = getattr(owner.thing, name)
    except AttributeError:
        close = nearest(name, dir(owner.thing))
        raise ctx.error(
            node,
            f"{owner.path} has no attribute {name!r}",
            f"did you mean {', '.join(close)}?" if close else "name something that it has",
        ) from None
    module = getattr(owner.thing, "__name__", "")
    if isinstance(owner.thing, ModuleType) and module in MODULE_INSTEAD and callable(thing):
        raise ctx.error(node, f"{path}() can't run in a handler", MODULE_INSTEAD[module])
    return of_object(ctx, node, thing, path)
