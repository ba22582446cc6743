"""Errors on their way to standard error: as text with the line and a caret, or one JSON object each."""

from __future__ import annotations

import os

from kprobes.errors import CompileError, DefinitionError, VerifierError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

    from kprobes.errors import KprobesError
    from kprobes.model.caution import Caution

# More mistakes than these help nobody at a time.
MOST_SHOWN = 20


def write_problems(error: KprobesError, stream: TextIO, *, as_json: bool = False) -> None:
    """Write *error* and the other mistakes that came with it, with KPROBES_DEBUG also the verifier's log."""
    found = error.mistakes if isinstance(error, CompileError) else (error,)
    shown = found[:MOST_SHOWN]
    if as_json:
        from kprobes.render.json_lines import JsonLines

        JsonLines(stream).write([row_of(one) for one in shown])
    else:
        stream.write("\n".join(map(_text_writer(stream), shown)))
    if len(found) > len(shown):
        stream.write(f"note: {len(found) - len(shown)} more mistakes are not shown\n")
    if isinstance(error, VerifierError) and os.environ.get("KPROBES_DEBUG"):
        stream.write(f"the verifier's log:\n{error.log}\n")


def write_warnings(cautions: Sequence[Caution], stream: TextIO, *, as_json: bool = False) -> None:
    """Write what is probably not meant in the handlers."""
    if as_json:
        from kprobes.render.json_lines import JsonLines

        JsonLines(stream).write(
            {"severity": "warning", "message": one.what, "hint": one.hint, "file": one.file, "line": one.line,
             "column": one.column + 1, "source": one.source}
            for one in cautions
        )  # fmt: skip
        return
    from kprobes.render.source import SourcePlace, problem
    from kprobes.render.terminal import Terminal

    terminal = Terminal.of(stream)
    for one in cautions:
        place = SourcePlace(one.file, one.line, one.column, one.source)
        stream.write(problem(one.what, terminal, place=place, hint=one.hint, severity="warning"))


def row_of(error: KprobesError) -> dict[str, object]:
    """Return *error* as the object that is shown with `--format json`; lines and columns count from 1."""
    row: dict[str, object] = {"severity": "error", "message": error.what, "hint": error.hint}
    if isinstance(error, CompileError) and error.line:
        row |= {"file": error.file, "line": error.line, "column": error.column + 1, "source": error.source}
        row["calls"] = [
            {"function": one.function, "file": one.file, "line": one.line, "column": one.column + 1}
            for one in error.calls
        ]
    if isinstance(error, DefinitionError) and error.command:
        row |= {"column": None if error.column is None else error.column + 1, "source": error.command}
    return row


def _text_writer(stream: TextIO) -> Callable[[KprobesError], str]:
    from kprobes.render.source import SourcePlace, problem
    from kprobes.render.terminal import Terminal

    terminal = Terminal.of(stream)

    def text(error: KprobesError) -> str:
        place: SourcePlace | None = None
        calls: tuple[str, ...] = ()
        if isinstance(error, CompileError) and error.line:
            place = SourcePlace(error.file, error.line, error.column, error.source)
            calls = tuple(map(str, error.calls))
        what = str(error) if isinstance(error, DefinitionError) else error.what
        return problem(what, terminal, place=place, calls=calls, hint=error.hint)

    return text
