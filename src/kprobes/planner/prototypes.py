"""Prototypes and types of programs and libraries, for the handlers of probes in them; read when first asked for."""

from __future__ import annotations

import re
from functools import cached_property

from kprobes.errors import FormatError
from kprobes.frozen import replace
from kprobes.model.probe import AutoHandler, FetchHandler
from kprobes.planner.places import NoTypes, prototype_shape, wants_prototype

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    from kprobes.model.ctype import CType, Enum, Function, Member, Struct, Types
    from kprobes.model.plan import Site
    from kprobes.model.probe import Probe
    from kprobes.planner.group import Group
    from kprobes.symbols.dwarf.types import ObjectTypes
    from kprobes.symbols.file import ResolvedFile

    T = TypeVar("T")

# What compilers call copies of a function that take other parameters, or begin elsewhere.
ALTERED = re.compile(r"\.(?:isra|constprop|part|cold)(?:\.|\Z)")


def is_entry(site: Site) -> bool:
    """Return whether *site* is where a function is entered, so that its arguments are there."""
    return not site.offset and bool(site.symbol)


class FileTypes:
    """The types of the program or library *path*; *root* is put before the paths of its debug files.

    Where there are none, or they are malformed, it knows C's own types only, and *reason* tells why.
    """

    def __init__(self, path: str, root: str) -> None:
        self._path = path
        self._root = root
        self._none = NoTypes()
        self.sources: tuple[str, ...] = ()
        self.reason = ""

    def function_at(self, address: int, symbol: str) -> Function | None:
        """Return the prototype of the function *symbol*, which is entered at *address* of the file."""
        if self._types is None:
            return None
        self.reason = ""
        if ALTERED.search(symbol):
            self.reason = f"{symbol} is a copy that the compiler has altered: it may take other parameters"
            return None
        found = self._ask(lambda types: types.function_at(address), None)
        if found is None:
            missing = self._ask(lambda types: types.missing, "")
            told = f"lies in {missing}, which isn't there" if missing else f"doesn't tell of {symbol}"
            self.reason = self.reason or f"the debug information of {self._name} {told}"
        return found

    # The protocol `Types`.

    def function(self, name: str) -> Function | None:
        """Return the prototype of the function *name*, or None."""
        return self._ask(lambda types: types.function(name), None)

    def struct(self, name: str) -> Struct | None:
        """Return `struct name` or `union name`, or None."""
        return self._ask(lambda types: types.struct(name), None)

    def member(self, struct: Struct, name: str) -> Member | None:
        """Return the member *name* of *struct*, or None."""
        return self._ask(lambda types: types.member(struct, name), None)

    def member_names(self, struct: Struct) -> Sequence[str]:
        """Return the names that `member` finds."""
        return self._ask(lambda types: types.member_names(struct), ())

    def enumerator(self, name: str) -> int | None:
        """Return the value of the enum constant *name*, or None."""
        return self._ask(lambda types: types.enumerator(name), None)

    def enumerators(self, enum: Enum) -> Mapping[int, str]:
        """Return the constants of *enum* by value."""
        return self._ask(lambda types: types.enumerators(enum), {})

    def variable(self, name: str) -> CType | None:
        """Return the type of the global variable *name*, or None."""
        return self._ask(lambda types: types.variable(name), None)

    def typename(self, name: str) -> CType | None:
        """Return the type that C or C++ calls *name*, or None."""
        return self._none.typename(name) or self._ask(lambda types: types.typename(name), None)

    # Reading.

    @property
    def _name(self) -> str:
        return self._path.rpartition("/")[2]

    @cached_property
    def _types(self) -> ObjectTypes | None:
        from kprobes.symbols.debugfile import find_debug_file
        from kprobes.symbols.elf import ElfFile

        try:
            with ElfFile(self._path) as elf:
                found = find_debug_file(elf, ".debug_info", self._root)
            self.sources = found.tried
            if not found.path:
                self.reason = f"{self._name} has no debug information: install its debug package, or build it with -g"
                return None
            from kprobes.symbols.dwarf.types import ObjectTypes

            types = ObjectTypes(found.path)
            self.sources += types.files
        except FormatError as problem:
            self.reason = str(problem)
            return None
        return types

    def _ask(self, question: Callable[[ObjectTypes], T], otherwise: T) -> T:
        if self._types is None:
            return otherwise
        try:
            return question(self._types)
        except FormatError as problem:
            self.reason = str(problem)
            return otherwise


class Prototypes:
    """What is known of the types of the files that a plan probes."""

    def __init__(self) -> None:
        self._files: dict[str, FileTypes] = {}
        self._sources: dict[str, None] = {}

    def of(self, path: str, root: str = "") -> FileTypes:
        """Return the types of the file *path*."""
        if path not in self._files:
            self._files[path] = FileTypes(path, root)
        return self._files[path]

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the files that were asked, also those that would have been and aren't there."""
        found = dict.fromkeys(path for one in self._files.values() for path in one.sources)
        return tuple({**self._sources, **found})

    def add_sources(self, paths: Sequence[str]) -> None:
        """Note files that were asked for something else."""
        self._sources.update(dict.fromkeys(paths))

    def groups(self, group: Group, resolved: Sequence[ResolvedFile]) -> list[Group]:
        """Return *group*, whose sites are *resolved* in this order, parted by prototype where its handler asks for
        one."""
        probe, first = group.probe, resolved[0]
        if not first.site.path or probe.only_counts:
            return [group]
        if not wants_prototype(probe, len(resolved)) and (
            len(resolved) > 1 or isinstance(probe.handler, AutoHandler | FetchHandler)
        ):
            return [replace(group, types=self.of(first.site.path, first.object.root))]
        found: dict[tuple[bool, object], tuple[Function | None, Types, str, list[int]]] = {}
        for number, one in enumerate(resolved):
            prototype, types, reason = self._prototype(probe, one)
            shape = is_entry(one.site), prototype_shape(prototype)
            found.setdefault(shape, (prototype, types, reason, []))[3].append(number)
        return [
            replace(
                group,
                sites=tuple(group.sites[n] for n in numbers),
                prototype=prototype,
                at_entry=is_at_entry,
                types=types,
                untyped=reason,
            )
            for (is_at_entry, _), (prototype, types, reason, numbers) in found.items()
        ]

    def _prototype(self, probe: Probe, one: ResolvedFile) -> tuple[Function | None, Types, str]:
        types = self.of(one.site.path, one.object.root)
        if not is_entry(one.site) or probe.on_fault:
            return None, types, ""
        prototype = types.function_at(one.address, one.site.symbol)
        if prototype is not None and not one.site.symbol.startswith("_Z"):
            prototype = replace(prototype, name=one.site.symbol)  # of several names that which was asked for
        return prototype, types, "" if prototype else types.reason
