"""What a module is put together from: one part for each definition or handler, in C, and what the module must know."""

from __future__ import annotations

from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class PlaceInC:
    """Where a probe sits: *symbol* + *offset*, or, with no symbol, *address*."""

    symbol: str = ""
    offset: int = 0
    address: int = 0

    @property
    def text(self) -> str:
        """Return the place for people."""
        if not self.symbol:
            return f"0x{self.address:x}"
        return f"{self.symbol}+{self.offset:#x}" if self.offset else self.symbol


@dataclass(frozen=True, slots=True)
class Part:
    """One probe in C: *name* is its identifier, *places* where it sits; *functions* is the text of its handlers.

    *pre*, *post*, *entry*, *handler* name those that there are; *data_size* is the expression of kretprobe's field.
    *declarations* stand before the functions; *setup* are statements of the module's init. *include* and *helpers* name
    what the text needs.
    """

    name: str
    title: str
    places: tuple[PlaceInC, ...]
    functions: str
    is_return: bool = False
    pre: str = ""
    post: str = ""
    entry: str = ""
    handler: str = ""
    data_size: str = ""
    maxactive: int = 0
    declarations: str = ""
    setup: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shared:
    """What parts share: a map or a setting. *declarations* is its text, *report* the statements that show it at the
    end, *setup* and *cleanup* statements of init (which may set `error`) and exit."""

    name: str
    declarations: str
    report: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    cleanup: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModuleSource:
    """A finished module: *name* is that of the module, the others are the content of its files."""

    name: str
    code: str
    makefile: str
    readme: str
