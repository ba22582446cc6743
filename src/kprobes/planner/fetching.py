"""Definitions of the kernel's own language: read as the target's kernel would, and compiled for each way in."""

from __future__ import annotations

from kprobes.compiler.fetch.lower import lower_definition
from kprobes.compiler.fetch.place import Surroundings
from kprobes.errors import DefinitionError, UnsupportedError, UsageError
from kprobes.frozen import replace
from kprobes.grammar.events import parse
from kprobes.grammar.facts import KERNELS, dialect
from kprobes.grammar.filter import fields_of, parse_filter
from kprobes.grammar.world import UNKNOWN, World
from kprobes.model.definition import AddressPlace, Definition, FilePlace
from kprobes.model.probe import FetchHandler, Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.compiler.front.compile import Surroundings as Around
    from kprobes.compiler.ir.nodes import Handler
    from kprobes.grammar.facts import Dialect
    from kprobes.grammar.filter import Expression
    from kprobes.model.ctype import Types
    from kprobes.model.facts import Facts
    from kprobes.model.mapspec import MapSpec
    from kprobes.planner.places import Places

NEWEST = KERNELS[-1]


def _hidden(name: str) -> int:
    raise UnsupportedError(f"the address of {name} can't be told here", hint="addresses are hidden from who isn't root")


class Definitions:
    """Reads definitions in the language of one kernel, by what *make_world* knows of it."""

    def __init__(
        self,
        language: Dialect,
        make_world: Callable[[bool], World],
        *,
        nearest: Callable[[str], Sequence[str]] | None = None,
        native: bool = False,
        hidden: Callable[[str], int] = _hidden,
    ) -> None:
        self.language = language
        self._hidden = hidden
        self._make_world = make_world
        self._nearest = nearest
        self._native = native
        self._worlds: dict[bool, World] = {}

    def placed(self, probe: Probe) -> Probe:
        """Return *probe* with its definition parsed, at the place that this names; others as they are.

        Raises:
            DefinitionError: the kernel refuses it.
            UsageError: it defines no probe.
        """
        given = probe.handler
        if not isinstance(given, FetchHandler):
            return probe
        user = probe.kind in ("uprobe", "uretprobe")
        kind = "uprobe" if user else "kprobe"
        try:
            found = parse(given.text, self.language, kind, world=self._world_of(user))
        except DefinitionError as refused:
            refused.command = refused.command or given.text  # of several definitions this is the one
            refused.hint = self._near(refused.code, probe.places[0]) or refused.hint
            raise
        if not isinstance(found, Definition):
            raise UsageError(f"{given.text!r} defines no probe", hint="write `p:NAME PLACE ARGUMENT...`")
        maxactive = probe.maxactive or (found.maxactive if given.text[1:2].isdigit() else 0)
        return replace(probe, places=(_spelled(found),), handler=replace(given, definition=found), maxactive=maxactive)

    def compiled(
        self,
        probe: Probe,
        behind: Callable[[], Around],
        maps: dict[str, MapSpec],
        first_event_id: int,
        *,
        returns_tell: bool,
    ) -> Handler:
        """Return the handler of a *probe* that `placed` returned.

        *behind* returns the surroundings of what follows, *maps* are the maps by name; *returns_tell* is what
        `Surroundings` has by that name.

        Raises:
            DefinitionError: the kernel refuses its filter.
            CompileError: an expression is outside of the language.
            UnsupportedError, UsageError: it asks for what can't be had.
        """
        given = probe.handler
        assert isinstance(given, FetchHandler)
        definition = given.definition
        assert isinstance(definition, Definition)
        condition = self.condition(definition, given.filter) if given.filter else None
        symbols = self._world_of(definition.is_user).symbols
        around = Surroundings(
            definition,
            given.text,
            symbols.address if symbols else self._hidden,
            first_event_id,
            given.strings,
            returns_tell=returns_tell,
            native=self._native,
            arch=self.language.machine.name,
        )
        if given.then is None:
            return lower_definition(around, condition)
        from kprobes.compiler.fetch.following import lower_following
        from kprobes.planner.auto import write_following

        source = write_following(given.then, definition.event, [one.name for one in definition.arguments])
        return lower_following(around, condition, source, behind(), maps)

    def condition(self, definition: Definition, text: str) -> Expression | None:
        """Return what the filter *text* says of the event of *definition*, None for `0`.

        Raises:
            DefinitionError: the kernel refuses it.
        """
        return parse_filter(text, fields_of(definition), self.language, self._world_of(definition.is_user))

    def _near(self, code: str, place: str) -> str:
        """Return which functions may have been meant by *place* where its symbol is refused; else an empty text."""
        symbol = place.partition("+")[0]
        if self._nearest is None or code != "BAD_PROBE_ADDR" or "/" in symbol or symbol[:1].isdigit():
            return ""
        near = [name for name in self._nearest(symbol) if name != symbol]
        return f"did you mean {', '.join(near)}?" if near else ""

    def _world_of(self, user: bool) -> World:
        if user not in self._worlds:
            self._worlds[user] = self._make_world(user)
        return self._worlds[user]


def kernel_definitions(places: Places) -> Definitions:
    """Return what reads definitions for the kernel that *places* are in.

    Raises:
        UnsupportedError: the language of its architecture isn't known.
    """
    facts = places.facts
    language = dialect(facts.features.release, facts.features.machine)
    if language.machine.bits != 64:
        raise UnsupportedError("definitions are not run on 32-bit kernels", hint="write a handler in Python")

    def make_world(user: bool) -> World:
        return UNKNOWN if user else _world_of(facts, places, language)

    return Definitions(language, make_world, nearest=places.kernel.table.nearest)


def process_definitions() -> Definitions:
    """Return what reads definitions for a process: the newest language."""
    return Definitions(dialect(NEWEST), lambda _: UNKNOWN, native=True)


def recorded_definitions(release: str, machine: str, types: Types) -> Definitions:
    """Return what reads definitions as the target of a recording has: a kernel of this *release*, whose *types* are
    known, or, where that is empty, a process."""
    if not release:
        return process_definitions()
    return Definitions(
        dialect(release, machine), lambda user: UNKNOWN if user else World(types=types), hidden=_unrecorded
    )


def _unrecorded(name: str) -> int:
    raise UnsupportedError(
        f"a recording doesn't tell the address of {name}", hint="leave @SYMBOL out of the definition"
    )


def _world_of(facts: Facts, places: Places, language: Dialect) -> World:
    from kprobes.symbols.definitions import FewSymbols, character_ids

    symbols = (
        None
        if places.kernel.table.hidden
        else FewSymbols(
            places.kernel.table,
            functions=facts.text("functions"),
            blacklist=facts.text("blacklist"),
            read=lambda address, size: facts.memory(address, size) or b"",
            arch=facts.features.machine,
        )
    )
    path = facts.btf() if language.btf else None
    return World(
        symbols,
        types=places.types if path else None,
        cpus=facts.features.cpus,
        character_ids=character_ids(path) if path else frozenset(),
    )


def _spelled(definition: Definition) -> str:
    """Return the place of *definition* as places are spelled. A return's offset leads behind ENDBR64 at most."""
    place = definition.place
    if isinstance(place, FilePlace):
        return f"{place.path}:{place.offset:#x}"
    if isinstance(place, AddressPlace):
        return f"{place.address:#x}"
    return f"{place.symbol}+{place.offset:#x}" if place.offset and not definition.is_return else place.symbol
