"""What a handler needs of the place it is attached to, read off its IR."""

from __future__ import annotations

from kprobes.compiler.ir.nodes import Builtin, Load, Node, ReadContext, ReadText, WriteContext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.compiler.ir.nodes import Handler


def nodes_of(handler: Handler) -> Iterator[Node]:
    """Yield each node of both parts of *handler*."""
    for function in (handler.entry, handler.exit):
        for block in function.blocks if function else ():
            yield from block.nodes


def uses_registers(handler: Handler) -> bool:
    """Tell whether *handler* needs the registers of the hit, which fentry and fexit don't have."""
    return any(
        isinstance(node, WriteContext) or (isinstance(node, ReadContext) and node.what == "register")
        for node in nodes_of(handler)
    )


def most_arguments(handler: Handler) -> int:
    """Return how many integer arguments, from the first, *handler* reaches into."""
    return max((node.index + 1 for node in _reads(handler, "argument")), default=0)


def uses_arguments(handler: Handler) -> bool:
    """Tell whether *handler* reads arguments of the probed function."""
    return most_arguments(handler) > 0


def uses_return(handler: Handler) -> bool:
    """Tell whether *handler* reads what the probed function returned."""
    return any(True for _ in _reads(handler, "return"))


def uses_function(handler: Handler) -> bool:
    """Tell whether *handler* asks for the address of the probed function."""
    return any(True for _ in _reads(handler, "function"))


def uses_stacks(handler: Handler) -> bool:
    """Tell whether *handler* takes stacks."""
    return any(isinstance(node, Builtin) and node.name in ("stack", "user_stack") for node in nodes_of(handler))


def changes_target(handler: Handler) -> bool:
    """Tell whether *handler* changes the probed program; its probe must say `unsafe`."""
    return any(isinstance(node, WriteContext) for node in nodes_of(handler))


def reads_memory(handler: Handler) -> bool:
    """Tell whether *handler* follows pointers."""
    return any(isinstance(node, Load | ReadText) for node in nodes_of(handler))


def _reads(handler: Handler, what: str) -> Iterator[ReadContext]:
    return (node for node in nodes_of(handler) if isinstance(node, ReadContext) and node.what == what)
