"""What a verdict depends on besides the text: symbols, files, types, the machine. Each may be unknown.

What is unknown is taken for granted: a symbol exists, is unique and is a function; a file is there; a name is a
parameter.
"""

from __future__ import annotations

from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from kprobes.model.ctype import Types

    class Symbols(Protocol):
        """The kernel's symbol table, and what is known of the code."""

        def count(self, name: str, module: str | None) -> int:
            """Return how many symbols are called *name*: in vmlinux (empty *module*), in *module*, or in all modules
            (None)."""

        def has_module(self, module: str) -> bool:
            """Return whether *module* is loaded."""

        def address(self, name: str) -> int:
            """Return the address of the first symbol *name* (also `module:name`), 0 where there is none."""

        def offset_at(self, address: int) -> int:
            """Return how far *address* lies in the symbol that holds it, -1 where none does."""

        def span(self, address: int) -> tuple[int, int] | None:
            """Return where the symbol that holds *address* begins and where the next one does; None where none holds
            it."""

        def begins_with_endbr(self, address: int) -> bool:
            """Return whether the function at *address* begins with ENDBR64."""

        def is_notrace(self, address: int) -> bool:
            """Return whether *address* lies in a function that ftrace leaves alone, and kprobe events with it."""

        def refusal(self, address: int) -> int:
            """Return the errno with which the kernel refuses a probe at *address*; 0 where it takes it, or where that
            isn't known."""

    class Files(Protocol):
        """The files that uprobes are set in."""

        def look(self, path: str) -> tuple[int, bool, str]:
            """Return (errno, whether it is a regular file, what names the file itself) of *path*."""


@dataclass(frozen=True, slots=True)
class World:
    """All that a verdict may depend on. *cpus* is the number of possible processors, *events* the names
    (`group/event`) that the kernel has of its own.

    *character_ids* are the small numbers that BTF gives to character types: a kernel that is asked for a string looks
    at the size of what is no pointer as if it were such a number, and may take it.
    """

    symbols: Symbols | None = None
    files: Files | None = None
    types: Types | None = None
    cpus: int = 1
    events: frozenset[str] = frozenset()
    character_ids: frozenset[int] = frozenset()


UNKNOWN = World()
