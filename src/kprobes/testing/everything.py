"""All arguments of a hit at once: `**arguments` and `args()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kprobes.testing.values import Pointer

if TYPE_CHECKING:
    from kprobes.testing.world import World


class Everything:
    """`**arguments`: all arguments, as attributes and as fields of an event."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._world.argument_named(name)

    def pairs(self) -> list[tuple[str, Any]]:
        """Return each argument with its name."""
        return [(name, _shown(self._world.argument_named(name))) for name in self._world.frame.names]


def _shown(value: Any) -> Any:
    """Return the string that a `const char *` points to, anything else as it is."""
    return value.string() if isinstance(value, Pointer) and value.is_text else value
