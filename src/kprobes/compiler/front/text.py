"""The text of a handler as its user wrote it: where each node stands, and the errors that point there."""

from __future__ import annotations

import ast

from kprobes.compiler.ir.nodes import Place
from kprobes.errors import Call, CompileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from kprobes.model.probe import HandlerSource


class SourceText:
    """One function's source: parsed once, with the map from its nodes to lines and columns of the user's file."""

    def __init__(self, source: HandlerSource) -> None:
        self.source = source
        self.lines = source.text.splitlines()
        self.definition = self._parse()

    def place(self, node: ast.AST) -> Place:
        """Return where *node* stands in the user's file: its beginning, for `a.b.c` that of the last name."""
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        if isinstance(node, ast.Attribute) and node.end_lineno and node.end_col_offset:
            line, column = node.end_lineno, node.end_col_offset - len(node.attr.encode())
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        if not text.isascii():  # ast counts bytes of UTF-8, people count characters
            column = len(text.encode()[:column].decode("utf-8", "replace"))
        return Place(self.source.line + line - 1, self.source.indent + column)

    def segment(self, node: ast.expr) -> str:
        """Return the text of *node* as it was written, on one line."""
        line = self.lines[node.lineno - 1]
        if node.end_lineno != node.lineno or not line.isascii():
            return ast.unparse(node)
        return line[node.col_offset : node.end_col_offset]

    def error(self, node: ast.AST, what: str, hint: str = "", calls: tuple[Call, ...] = ()) -> CompileError:
        """Return the error that points at *node*; *calls* lead to this function."""
        return self.error_at(self.place(node), what, hint, calls)

    def error_at(self, place: Place, what: str, hint: str = "", calls: tuple[Call, ...] = ()) -> CompileError:
        """Return the error that points at *place*."""
        where = (self.source.file, place.line, place.column)
        return CompileError(what, hint=hint, place=where, source=self.line(place.line), calls=calls)

    def call_at(self, node: ast.AST, function: str) -> Call:
        """Return the call of *function* that *node* is."""
        place = self.place(node)
        return Call(function, self.source.file, place.line, place.column, self.line(place.line))

    def line(self, number: int) -> str:
        """Return line *number* of the user's file, empty where that isn't one of this function."""
        index = number - self.source.line
        return f"{' ' * self.source.indent}{self.lines[index]}" if 0 <= index < len(self.lines) else ""

    def numbered_lines(self) -> dict[int, str]:
        """Return the lines as they stand in the user's file, by number."""
        indent = " " * self.source.indent
        return {self.source.line + index: indent + line for index, line in enumerate(self.lines)}

    def _parse(self) -> ast.FunctionDef:
        source = self.source
        try:
            tree = ast.parse(source.text)
        except SyntaxError as error:
            place = Place(source.line + (error.lineno or 1) - 1, source.indent + max((error.offset or 1) - 1, 0))
            raise self.error_at(
                place, f"this is no Python: {error.msg}", "look at the marked place and before it"
            ) from None
        except (ValueError, RecursionError, MemoryError):
            raise self.error_at(
                Place(source.line, source.indent),
                "this is no Python: NUL bytes or nested too deeply",
                "write it in shorter statements",
            ) from None
        if len(tree.body) == 1 and isinstance(tree.body[0], ast.FunctionDef):
            return tree.body[0]
        odd = tree.body[0] if tree.body else None
        if isinstance(odd, ast.AsyncFunctionDef):
            raise self.error(odd, "a handler can't be async", hint="write a plain def")
        where = self.place(odd) if odd else Place(source.line, source.indent)
        raise self.error_at(where, "a handler is one function", hint="write a plain def")


def nearest(name: str, known: Iterable[str], most: int = 3) -> tuple[str, ...]:
    """Return those of *known* that come close to *name*, best first."""
    from difflib import get_close_matches

    return tuple(get_close_matches(name, sorted(set(known)), n=most, cutoff=0.6))


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return a hint that offers names close to *name*, or *otherwise*."""
    found = nearest(name, known)
    return f"did you mean {', '.join(found)}?" if found else otherwise


def listed(names: Iterable[str], most: int = 12) -> str:
    """Return *names* as one readable list, cut after *most*."""
    shown = list(names)
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more
