"""The state of one handler while it is written in C: what is known of its names, and what its text needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.front.scan import names_read
from kprobes.export.cnaming import Names, c_string, identifier
from kprobes.export.part import Shared as PartInC
from kprobes.export.prelude import HELPERS
from kprobes.frozen import dataclass
from kprobes.model.containers import Array
from kprobes.model.mapspec import MapSpec
from kprobes.model.setting import Setting

if TYPE_CHECKING:
    import ast

    from kprobes.compiler.front.compile import Seen
    from kprobes.compiler.front.terms import Term
    from kprobes.errors import Call, CompileError
    from kprobes.export.folding import ArrayInC
    from kprobes.export.functions import FunctionInC
    from kprobes.export.storage import MapInC
    from kprobes.model.ctype import Function, Types

# How tightly C's operators bind; the lower the tighter.
ATOM, UNARY, PRODUCT, SUM, SHIFT, RELATION, EQUALITY, BITS, AND, OR, CHOICE = range(11)
RESERVED = frozenset({"p", "ri", "regs", "site", "fault", "call", "out", "ignored", "current"})


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression of C: its *text*, how it *binds*, and whether its type is one of 64 bits (or a pointer, a truth
    value), so that it can be computed with as it is. *signed* is the type's sign."""

    text: str
    binds: int = ATOM
    wide: bool = True
    signed: bool = True
    pointer: bool = False

    def within(self, binds: int) -> str:
        """Return the text for a place that takes what binds at least as tightly as *binds*."""
        return self.text if self.binds <= binds else f"({self.text})"


class Shared:
    """What the handlers of a module have in common: maps, settings, names."""

    def __init__(self, names: Names, includes: tuple[str, ...]) -> None:
        self.names = names
        self.given = includes
        self.maps: dict[str, MapInC | ArrayInC] = {}
        self.assertions: dict[str, str] = {}
        self.settings: dict[str, tuple[Setting, str]] = {}
        self.functions: dict[str, FunctionInC] = {}  # by their text without the name

    def map_of(self, spec: MapSpec) -> MapInC | ArrayInC:
        """Return the map *spec* in C; one of its sort that a module can't have raises ValueError."""
        found = self.maps.get(spec.name)
        if found is None:
            from kprobes.export.folding import ArrayInC
            from kprobes.export.storage import MapInC, one_integer

            if isinstance(spec, Array):
                one_integer(spec.name, spec.value)
                found = ArrayInC(spec, self.names.new(spec.name))
            else:
                found = MapInC(spec, self.names.new(spec.name))
            self.maps[spec.name] = found
        return found

    def assertion(self, place: str) -> str:
        """Return the variable of what is to hold at *place*."""
        found = self.assertions.get(place)
        if found is None:
            found = self.assertions[place] = self.names.new("assertion")
        return found

    def finished(self) -> list[PartInC]:
        """Return the maps and the functions as parts of the module, once all handlers are written."""
        functions = (
            PartInC(one.name, one.text, includes=one.includes, helpers=one.helpers) for one in self.functions.values()
        )
        asserts = (_assertion(name, place) for place, name in self.assertions.items())
        return [*(one.shared() for one in self.maps.values()), *asserts, *functions]

    def setting_of(self, setting: Setting) -> str:
        """Return the variable of *setting*."""
        found = self.settings.get(setting.name)
        if found is None:
            found = self.settings[setting.name] = (setting, self.names.new(setting.name))
        return found[1]


def _outside(seen: Seen) -> set[str]:
    """Return what C calls the things outside that a function names: no local of it may hide one."""
    names = seen.text.source.names
    things = (names[name] for name in names_read(seen.text.definition.body) if name in names)
    return {identifier(thing.name) for thing in things if isinstance(thing, Setting | MapSpec)} | {
        identifier(one.text.definition.name) for one in seen.calls.values()
    }


def _assertion(name: str, place: str) -> PartInC:
    report = (
        f"if (atomic64_read(&{name}.failed))",
        f'\tpr_info("assertion failed %lld times: %s\\n", atomic64_read(&{name}.failed), {name}.place);',
    )
    text = f"static struct assertion {name} = {{ .place = {c_string(place)} }};\n"
    return PartInC(name, text, report=report, helpers=("assertion",))


class Unit:
    """One function in the making: a handler of some *kind* (pre, post, entry, return), or what it calls.

    *fault* is how its text spells the flag for a read that failed. *context* gathers the parameters of the handler that
    the text names, *called* the functions that it calls. *unsettled* are locals that a setting decides;
    *acts* says whether it does something outside of itself.
    """

    fault = "fault"
    fault_address = "&fault"

    def __init__(self, seen: Seen, shared: Shared, types: Types, prototype: Function | None, kind: str) -> None:
        self.seen = seen
        self.shared = shared
        self.types = types
        self.prototype = prototype
        self.kind = kind
        self.title = seen.text.source.name
        self.way: tuple[Call, ...] = ()
        self.context: set[str] = set()
        self.unsettled: set[str] = set()
        self.called: dict[str, FunctionInC] = {}
        self.acts = False
        self.statement: ast.stmt | None = None
        self.result: str | None = None  # the type of what a function returns
        self.helpers: list[str] = []
        self.includes: list[str] = []
        self.locals: dict[str, str] = {}  # name in Python -> name in C
        self.names = Names(RESERVED | HELPERS.keys() | _outside(seen))
        self.declared: list[str] = []
        self.body: list[str] = []
        self.depth = 1
        self.conditional = 0
        self.needs_out = False

    @property
    def called_stack(self) -> int:
        """Return how many bytes of the stack the functions that are called take."""
        return sum(one.stack for one in self.called.values())

    # Text.

    def line(self, text: str) -> None:
        """Append a statement."""
        self.body.append("\t" * self.depth + text)

    def declare(self, text: str) -> None:
        """Declare a local at the top of the function."""
        self.declared.append(text)

    def local(self, wanted: str) -> str:
        """Return the name of a new local."""
        return self.names.new(wanted)

    def fail(self, condition: str) -> None:
        """Append the statement that notes a fault where *condition* holds."""
        self.line(f"if ({condition})")
        self.line(f"\t{self.fault} = true;")

    def use(self, *helpers: str) -> None:
        """Note helpers that the text calls."""
        self.helpers += helpers

    def include(self, *headers: str) -> None:
        """Note headers that the text needs."""
        self.includes += headers

    # Facts.

    def term(self, node: ast.AST) -> Term:
        """Return what the front made of *node*."""
        found = self.seen.terms.get(node)
        if found is None:
            raise self.refuse(node, "this can't be told in C here", "write it as a statement of its own")
        return found

    def refuse(self, node: ast.AST, what: str, hint: str = "") -> CompileError:
        """Return the error that says that *what* has no translation to C."""
        told = f"{what}: a kernel module in C doesn't have it"
        return self.seen.text.error(node, told, hint, self.way)
