"""The IR's verifier: a violation is a bug of the front or of a pass, never the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.ir.operands import made, successors
from kprobes.errors import InternalError

if TYPE_CHECKING:
    from kprobes.compiler.ir.nodes import Function, Handler


def verify(handler: Handler) -> None:
    """Check *handler*: values are assigned once, and every jump has a target.

    Raises:
        InternalError: it is malformed.
    """
    for function in (handler.entry, handler.exit):
        if function is not None:
            _verify(function)


def _verify(function: Function) -> None:
    labels = {block.label for block in function.blocks}
    seen: set[int] = set()
    for block in function.blocks:
        for node in block.nodes:
            for value in made(node):
                if value.number in seen:
                    raise InternalError(f"{function.name}: {value} is assigned twice")
                seen.add(value.number)
        for target in successors(block):
            if target not in labels:
                raise InternalError(f"{function.name}: block {block.label} goes to {target}, which is not there")
