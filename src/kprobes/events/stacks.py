"""Stacks as keys of a map: their frames by name in the place of their numbers."""

from __future__ import annotations

from errno import errorcode

from kprobes.events.value import StackId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    _Names = tuple[str, ...]
else:
    _Names = tuple


class Frames(_Names):
    """The frames of a stack, innermost first, as `symbol+offset`."""

    __slots__ = ()

    def __str__(self) -> str:
        return " < ".join(self) or "(nothing)"


def named(held: Mapping[Any, Any], stack: Callable[[int], list[str]]) -> dict[Any, Any]:
    """Return *held*, a result by key, with `Frames` for the stacks in its keys; *stack* gives the frames of a number.

    Stacks that are told apart by where they stand in the probe itself have the same frames: they are added up.
    """
    known: dict[int, Frames] = {}

    def frames(part: Any) -> Any:
        if not isinstance(part, StackId):
            return part
        if part not in known:
            known[part] = Frames(stack(part)) if part >= 0 else Frames((f"[not kept: {errorcode.get(-part, part)}]",))
        return known[part]

    found: dict[Any, Any] = {}
    for key, value in held.items():
        name = tuple(map(frames, key)) if isinstance(key, tuple) else frames(key)
        found[name] = found[name] + value if name in found else value
    return found
