"""From a Python function to the text of its handler, without `inspect` and without parsing the whole file.

This is on the way of each start, also of those that find their plan in the cache: nothing heavy is imported here.
"""

from __future__ import annotations

import sys
from types import FunctionType, MethodType

from kprobes.errors import CompileError
from kprobes.model.probe import HandlerSource, Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType
    from typing import NoReturn

ONLY_AST = 0x400  # ast.PyCF_ONLY_AST: importing `ast` for one number would cost more than all of this
NO_FILE_HINT = "handlers are compiled from their text: write them in a file, or in IPython or Jupyter, which keep it"
# What these have is called where the program runs that probes; handlers run in the target.
OUTSIDE = ("kprobes.decorators", "kprobes.kapi.", "kprobes.session.")
IS_COROUTINE = 0x80 | 0x200  # CO_COROUTINE, CO_ASYNC_GENERATOR


def source_of(function: object) -> HandlerSource:
    """Return the text of *function* as a handler, with the names it sees.

    Raises:
        CompileError: it is no plain function written in a file, or its file has changed since it was imported; it is
            one of ours that handlers can't call.
    """
    if not isinstance(function, FunctionType):
        _refuse(function)
    if (function.__module__ or "").startswith(OUTSIDE):
        raise CompileError(
            f"{function.__name__}() can't be called in a handler, which runs in the target",
            hint="call it before or after: handlers can't wait, in a kernel's C neither; a number can be a constant",
        )
    code = function.__code__
    place = (code.co_filename, code.co_firstlineno, 0)
    if hasattr(function, "__wrapped__"):
        raise CompileError(
            f"{function.__name__} is wrapped by another decorator, and a handler is compiled from its own text",
            hint="leave the other decorator out",
            place=_place_of(function.__wrapped__, place),
        )
    if code.co_name == "<lambda>":
        raise CompileError("a handler can't be a lambda", hint="write it with def", place=place)
    if code.co_flags & IS_COROUTINE:
        raise CompileError("a handler can't be async", hint="write a plain def", place=place)
    lines = _lines_of(code.co_filename, function.__globals__)
    if lines is None:
        raise CompileError(
            f"the source of {code.co_name} is not to be found ({code.co_filename})",
            hint=NO_FILE_HINT if code.co_filename.startswith("<") else "handlers are compiled from their text: keep it",
        )
    text, line, indent = _cut_out(code, lines, place)
    return HandlerSource(code.co_name, text, code.co_filename, line, indent, _names_of(function))


def _refuse(thing: object) -> NoReturn:
    kind = type(thing).__name__
    hint = "write it with def"
    if isinstance(thing, MethodType):
        hint = "move it out of the class: a handler has no self"
    elif isinstance(thing, staticmethod | classmethod | property):
        hint = "move it out of the class"
    elif isinstance(thing, Probe):
        hint = 'one decorator takes all its places: @kprobe("a", "b"); for another kind write a second handler'
    elif isinstance(thing, type):
        hint = "a handler has no state of its own: keep it in a HashMap, Count or Histogram"
    raise CompileError(f"a handler is a plain function, this is {_article(kind)} {kind}", hint=hint)


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"


def _place_of(thing: object, otherwise: tuple[str, int, int]) -> tuple[str, int, int]:
    code = getattr(thing, "__code__", None)
    return (code.co_filename, code.co_firstlineno, 0) if code else otherwise


def _names_of(function: FunctionType) -> Mapping[str, object]:
    closed: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            closed[name] = cell.cell_contents
        except ValueError:  # not assigned yet; naming it is an error of its own then
            continue
    if not closed:
        return function.__globals__
    from collections import ChainMap  # few handlers are closures

    return ChainMap(closed, function.__globals__)


def _lines_of(path: str, module_globals: Mapping[str, object]) -> list[str] | None:
    linecache = sys.modules.get("linecache")
    if linecache is not None and (path.startswith("<") or path in linecache.cache):
        lines = linecache.getlines(path, module_globals)
        if lines:
            return [line.rstrip("\r\n") for line in lines]
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs 10 ms to import
            data = file.read()
    except (OSError, ValueError):
        loader = module_globals.get("__loader__")
        found = getattr(loader, "get_source", None)  # a module in a zip file
        try:
            text = found(module_globals.get("__name__")) if found else None
        except (ImportError, OSError):
            text = None
        return text.splitlines() if isinstance(text, str) else None
    return _decoded(data).splitlines()


def _decoded(data: bytes) -> str:
    head = b"\n".join(data.split(b"\n", 2)[:2])
    if b"coding" in head:
        import io
        import tokenize

        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(encoding, "replace")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")


def _cut_out(code: CodeType, lines: list[str], place: tuple[str, int, int]) -> tuple[str, int, int]:
    """Return the dedented text of the function, the line it begins on, and its indent."""
    start = _definition_line(code, lines)
    if start is None:
        raise CompileError(
            f"{code.co_name} is no longer where it was imported from: its file has changed",
            hint="start the script again",
            place=place,
        )
    indent = len(lines[start]) - len(lines[start].lstrip())
    end = _end_of_block(lines, start, indent)
    text = _dedented(lines[start:end], indent)
    if not _is_whole(text):
        end = _end_by_parsing(lines, code.co_name, start)
        text = _dedented(lines[start:end], indent)
    return text, start + 1, indent


def _definition_line(code: CodeType, lines: list[str]) -> int | None:
    """Return the index of the line with `def`: at or, behind decorators, below the function's first line."""
    wanted = f"def {code.co_name}"
    for index in range(code.co_firstlineno - 1, min(code.co_firstlineno + 199, len(lines))):
        head = lines[index].lstrip()
        if head.startswith((f"{wanted}(", f"{wanted} ", f"{wanted}\t", f"{wanted}[")):
            return index
        if index == code.co_firstlineno - 1 and not head.startswith("@"):
            return None
    return None


def _end_of_block(lines: list[str], start: int, indent: int) -> int:
    """Return the index behind the last line of the block, judged by indentation alone."""
    end = start + 1
    for index in range(start + 1, len(lines)):
        stripped = lines[index].lstrip()
        if not stripped or stripped[0] == "#":
            continue
        if len(lines[index]) - len(stripped) <= indent and stripped[0] not in ")]}":
            break
        end = index + 1
    return end


def _dedented(lines: list[str], indent: int) -> str:
    margin = lines[0][:indent]
    cut = [line[indent:] if line.startswith(margin) else line.lstrip() for line in lines]
    return "\n".join(cut) + "\n"


def _is_whole(text: str) -> bool:
    try:
        compile(text, "<handler>", "exec", ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _end_by_parsing(lines: list[str], name: str, start: int) -> int:
    """Return the index behind the function by parsing its whole file: a string in it reaches into the margin."""
    import ast

    try:
        tree = ast.parse("\n".join(lines) + "\n")
    except (SyntaxError, ValueError):
        return len(lines)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name and node.lineno == start + 1:
            return node.end_lineno or len(lines)
    return len(lines)
