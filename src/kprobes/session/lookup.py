"""The addresses of symbols by their names, in the target that is meant."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar

from kprobes.engines.targets import Kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kprobes.engines.targets import Target

    Lookup = Callable[[str], int]

_meant: ContextVar[Lookup | None] = ContextVar("kprobes_lookup", default=None)


def kallsyms_lookup_name(name: str, target: Target | None = None) -> int:
    """Return the address of the kernel symbol *name* (0 where addresses are hidden).

    Without *target* that of the `with Module(...)` around is meant, whose functions these are if it is a process; in a
    script under `kprobes run` the kernel that it is run on; else this machine's kernel.

    Raises:
        SymbolNotFoundError, AmbiguousSymbolError: with the nearest names, or the candidates.
    """
    from kprobes.symbols.kallsyms import Kallsyms

    lookup = _meant.get() if target is None else None
    if lookup is not None:
        return lookup(name)
    wanted = target or Kernel()
    engine = wanted.look() if hasattr(wanted, "look") else wanted.open()
    try:
        return Kallsyms.load(engine.facts().kallsyms()).kallsyms_lookup_name(name)
    finally:
        engine.close()


@contextmanager
def looking_up(lookup: Lookup) -> Iterator[None]:
    """Let names that are given no target be looked up by *lookup*."""
    token = _meant.set(lookup)
    try:
        yield
    finally:
        _meant.reset(token)
