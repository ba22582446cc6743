"""Warnings about a plan's handlers together: those of each, and maps that are looked into and never written."""

from __future__ import annotations

from kprobes.compiler.ir.nodes import MapDelete, MapRead
from kprobes.model.caution import IGNORE, Caution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kprobes.compiler.ir.nodes import Handler, Node


def cautions_of(handlers: Sequence[Handler]) -> tuple[Caution, ...]:
    """Return the warnings about *handlers*, each once: one handler may be compiled for many prototypes."""
    found = dict.fromkeys(caution for handler in handlers for caution in handler.cautions)
    return tuple(dict.fromkeys([*found, *_never_written(handlers)]))


def _never_written(handlers: Sequence[Handler]) -> Iterator[Caution]:
    nodes = [node for handler in handlers for node in _nodes(handler)]
    written = {getattr(node, "map", "") for node in nodes if not isinstance(node, MapRead | MapDelete)}
    told = set()
    for handler in handlers:
        for node in _nodes(handler):
            if not isinstance(node, MapRead) or node.map in written or node.map in told:
                continue
            told.add(node.map)
            source = handler.lines.get(node.place.line, "")
            if IGNORE not in source:
                what = f"{node.map} is looked into, and no handler writes to it"
                hint = "every key is missing: set one with map[key] = value"
                yield Caution(what, hint, handler.file, node.place.line, node.place.column, source)


def _nodes(handler: Handler) -> Iterator[Node]:
    for function in (handler.entry, handler.exit):
        for block in function.blocks if function else ():
            yield from block.nodes
