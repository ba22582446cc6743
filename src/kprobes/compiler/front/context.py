"""The state of one compilation: the part being built, the scopes, and what was found out about variables."""

from __future__ import annotations

from kprobes.arch.registers import registers
from kprobes.compiler.front import cautions, texts, variables
from kprobes.compiler.front.mistakes import Mistakes
from kprobes.compiler.front.scan import count_stores
from kprobes.compiler.front.terms import Map, RecordArray, Term, describe
from kprobes.compiler.ir.nodes import U64, IntType, Place, Slot, Value
from kprobes.errors import Call, CompileError, UsageError
from kprobes.frozen import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from kprobes.compiler.front.build import Builder, OpenBlock
    from kprobes.compiler.front.owntypes import OwnTypes
    from kprobes.compiler.front.parameters import Parameters
    from kprobes.compiler.front.surroundings import Surroundings
    from kprobes.compiler.front.text import SourceText
    from kprobes.compiler.front.variables import Variable
    from kprobes.model.layout import EventLayout
    from kprobes.model.mapspec import MapSpec
    from kprobes.model.plan import Assertion
else:
    Protocol = object  # `typing` is 5 ms of every command that compiles

# Arguments of a function that nothing tells the prototype of, shown as they are.
RAW_ARGUMENTS = 3


class TypeUnknownError(Exception):
    """A variable is read whose assignment comes later, in a loop: the statement waits for the next pass."""


@dataclass(frozen=True, slots=True)
class Links:
    """The links of a comparison, each made when the ones before it let it: `a < b < c`, `x in (a, b)`.

    With *stop* the whole is true as soon as one link is, else false as soon as one isn't; *negated* turns it over.
    """

    makers: list[Callable[[], Term]]
    stop: bool = False
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Loop:
    """Where `continue` and `break` go, and the names that the body assigns."""

    again: OpenBlock
    after: OpenBlock
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Final:
    """What a `finally` runs, and in how many loops of its function it stands."""

    body: Sequence[ast.stmt]
    loops: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One function under compilation: the handler, or a helper that is inlined.

    *scope* prefixes the keys of its variables; *names* are the Python names it sees. *stores* and *loads* count
    the assignments and the uses of each local. *bindings* are locals that stand for one term throughout. *results*
    gathers what a helper returns.
    """

    text: SourceText
    scope: str
    names: Mapping[str, object]
    stores: Mapping[str, int]
    loads: Mapping[str, int]
    call: ast.AST | None = None
    bindings: dict[str, Term] = field(default_factory=dict)
    loops: list[Loop] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)
    results: list[tuple[OpenBlock, Term | None, ast.AST]] = field(default_factory=list)
    bindable: frozenset[int] = frozenset()
    crossing: frozenset[str] = frozenset()
    arguments_word: str = ""


class Seen:
    """What a compilation has found out of one function, for those who write it in another language.

    *terms* is the term of each expression that was compiled, in the end; *turns* how often each `while` may turn;
    *calls* is what was found out of the functions that it calls, by the calls; *bound* are the terms of its parameters,
    where it is called itself.
    """

    def __init__(self, scope: str = "") -> None:
        self.scope = scope
        self.text: SourceText
        self.types: Mapping[str, Variable] = {}
        self.bound: dict[str, Term] = {}
        self.forget()

    def forget(self) -> None:
        """Begin anew: what the last pass has found out doesn't hold any more."""
        self.terms: dict[ast.AST, Term] = {}
        self.turns: dict[ast.AST, int] = {}
        self.calls: dict[ast.AST, Seen] = {}

    def enter(self, call: ast.AST, frame: Frame, bound: dict[str, Term]) -> Seen:
        """Return what will be seen of the function of *frame*, which *call* calls."""
        inner = self.calls[call] = Seen(frame.scope)
        inner.text, inner.types, inner.bound = frame.text, self.types, bound
        return inner

    def variable(self, name: str) -> Variable | None:
        """Return the type of the local *name*."""
        return self.types.get(self.scope + name)


class Given(Protocol):
    """What a handler runs behind: a definition in the kernel's language."""

    def begin(self, ctx: Context, entry: Builder) -> dict[str, Term]:
        """Build what comes first in the current part; return what names stand for from then on. What only the entry
        knows is written to slots in *entry*, which is the same part where the handler has one alone."""


class Context:
    """What the passes over a handler share. *types* outlives a pass, all else is new in each."""

    def __init__(
        self, text: SourceText, around: Surroundings, types: dict[str, Variable], maps: dict[str, MapSpec]
    ) -> None:
        self.text = text
        self.around = around
        self.types = types
        self.maps: dict[str, MapSpec] = maps
        self.used_maps: dict[str, Map] = {}
        self.events: list[EventLayout] = []
        self.asserts: dict[str, Assertion] = {}
        self.lines: dict[int, str] = text.numbered_lines()
        self.frames: list[Frame] = []
        self.assigned: set[str] = set()
        self.settled = True
        self.mistakes = Mistakes()
        self.cautions = cautions.Cautions()
        self.last_try = False
        self.turns = 1
        self.inlined = 0
        self._temporaries = 0
        self.build: Builder
        self.lower: Callable[[ast.expr], Term]
        self.find_name: Callable[[ast.Name], Term]
        self.truth: Callable[[ast.AST, Term], Term]
        self.links: Callable[[ast.Compare], Links]
        self.run: Callable[[Sequence[ast.stmt]], None]
        self.handler_parameters: frozenset[str] = frozenset()
        self.helpers: dict[object, SourceText] = {}
        self.own: OwnTypes
        self.parameters: Parameters
        self.seen: Seen | None = None
        self.given: Given | None = None

    @property
    def frame(self) -> Frame:
        """Return the function under compilation."""
        return self.frames[-1]

    @property
    def first_register(self) -> str:
        """Return how a handler spells the first argument's register, as an example for hints."""
        return f"regs.{registers(self.around.arch).kernel_arguments[0]}"

    @property
    def default_space(self) -> str:
        """Return where a bare address points: user space in a process, else it is told by the address."""
        return "user" if self.around.user else "any"

    # Places and errors.

    def place(self, node: ast.AST) -> Place:
        """Return the place of *node* in the handler's file; for a helper of another file, that of its call."""
        for frame in reversed(self.frames):
            if frame.text.source.file == self.text.source.file or frame.call is None:
                return frame.text.place(node)
            node = frame.call
        return self.text.place(node)

    def error(self, node: ast.AST, what: str, hint: str = "") -> CompileError:
        """Return the error that points at *node* of the function under compilation."""
        text = self.frames[-1].text if self.frames else self.text
        return text.error(node, what, hint, self.calls())

    def calls(self) -> tuple[Call, ...]:
        """Return the calls that lead to the function under compilation, the innermost first."""
        pairs = zip(self.frames[1:], self.frames, strict=False)
        found = [
            outer.text.call_at(inner.call, inner.text.source.name)
            for inner, outer in pairs
            if inner.call and outer.text.source.calling is None
        ]
        return tuple(reversed(found))

    def enter_lost_loop(self, statement: ast.stmt) -> None:
        """Compile the body of a loop whose head has a mistake: nothing of it is kept."""
        block = self.build.current
        self.frame.loops.append(Loop(block, block, frozenset(count_stores([statement]))))

    # Slots and variables.

    def new_slot(self, kind: IntType | None, size: int = 0, name: str = "t") -> Slot:
        """Return a slot of its own name."""
        self._temporaries += 1
        return Slot(f".{name}{self._temporaries}", kind, size)

    def assign(self, node: ast.AST, name: str, term: Term) -> None:
        """Make *term* the value of the local *name*; widens its type where needed.

        Raises:
            CompileError: *name* holds something of another sort.
        """
        key = self.frame.scope + name
        self.keep(node, key, name, term)
        self.assigned.add(key)

    def keep(self, node: ast.AST, key: str, name: str, term: Term) -> None:
        """Make *term* the value of the variable *key*, called *name*; as `assign`."""
        found = variables.variable_for(term)
        if found is None:
            raise self.error(node, f"{describe(term)} can't be kept in a variable", "name it where it is used")
        known = self.types.get(key)
        both = found if known is None else variables.joined(known, found)
        if both is None:
            assert known is not None
            raise variables.mismatch(self, node, name, known, term)
        if both != known:
            self.types[key] = both
            self.settled &= known is None
        variables.write(self, node, key, both, term)

    def local(self, node: ast.AST, name: str) -> Term:
        """Return what the local *name* holds.

        Raises:
            CompileError: nothing was assigned to it yet.
        """
        key = self.frame.scope + name
        if key not in self.assigned and not any(name in loop.names for loop in self.frame.loops):
            raise self.error(node, f"{name} is used before it is assigned", f"begin with a value: {name} = 0")
        known = self.types.get(key)
        if known is None and self.last_try:
            raise self.error(node, f"{name} is used before it is assigned", f"begin with a value: {name} = 0")
        if known is None or (not self.last_try and self._may_become_typed(known, name)):
            self.settled = False
            raise TypeUnknownError(name)
        return variables.read(self, node, key, known)

    def _may_become_typed(self, known: Variable, name: str) -> bool:
        """Tell whether *name* is only known as `None` so far, and a loop goes on to assign it."""
        untyped = isinstance(known, variables.PointerVariable) and known.target is None
        return untyped and any(name in loop.names for loop in self.frame.loops)

    def merge(self, node: ast.AST, ways: list[tuple[OpenBlock, Term]]) -> Term:
        """Join blocks that each end with a term of their own; continue in a new block with the term of all.

        Raises:
            CompileError: the terms are of different sorts.
        """
        self._temporaries += 1
        key = f".t{self._temporaries}"
        kinds = [variables.variable_for(term) for _, term in ways]
        whole = kinds[0]
        for kind, (_, term) in zip(kinds[1:], ways[1:], strict=True):
            whole = variables.joined(whole, kind) if whole and kind else None
            if whole is None:
                raise self.error(
                    node, f"one way gives {describe(ways[0][1])}, another {describe(term)}", "both must agree"
                )
        if whole is None:
            raise self.error(
                node, f"{describe(ways[0][1])} can't be chosen at run time", "write an if with a statement on each side"
            )
        after = self.build.new_block("join")
        for block, term in ways:
            self.build.current = block
            variables.write(self, node, key, whole, term)
            self.build.jump(self.place(node), after)
        self.build.place_block(after)
        return variables.read(self, node, key, whole)

    def select(self, node: ast.AST, condition: Value, yes: Callable[[], Term], no: Callable[[], Term]) -> Term:
        """Return the term of *yes* where *condition* holds, else that of *no*; each is evaluated only if chosen."""
        first, second = self.build.new_block("then"), self.build.new_block("else")
        self.build.branch(self.place(node), condition, first, second)
        ways = []
        for block, make in ((first, yes), (second, no)):
            self.build.place_block(block)
            term = make()
            ways.append((self.build.current, term))
        return self.merge(node, ways)

    # Maps.

    def use_map(self, node: ast.AST, spec: MapSpec) -> Map:
        """Return the term of the map *spec*.

        Raises:
            CompileError: another map has its name, or its shape is wrong.
        """
        if not spec.name or spec.name.startswith("."):
            raise self.error(node, f"a map can't be called {spec.name!r}", "begin its name with a letter")
        known = self.maps.setdefault(spec.name, spec)
        if known is not spec:
            raise self.error(
                node, f"two maps are called {spec.name!r}", "give each map its own name, or share one object"
            )
        found = self.used_maps.get(spec.name)
        if found is None:
            try:
                found = Map(spec, spec.layout(self.around.shards))
            except UsageError as error:
                raise self.error(node, error.what, error.hint) from None
            self.used_maps[spec.name] = found
        return found

    def parameters_for_events(self, node: ast.AST) -> list[tuple[str, Term]]:
        """Return name and term of each parameter that can be shown; `const char *` are read as strings."""
        found: list[tuple[str, Term]] = []
        if self.parameters.are_unknown():
            return [(f"arg{number + 1}", self.parameters.raw(node, number)) for number in range(RAW_ARGUMENTS)]
        for name in self.parameters.readable():
            term = self.parameters.by_name(node, name)
            if self.parameters.is_string(name):
                term = texts.string_at(self, node, term, texts.DEFAULT_SIZE)
            if not isinstance(term, RecordArray):
                found.append((name, term))
        return found

    def counter(self) -> Slot:
        """Return the counter of a new loop."""
        return self.new_slot(U64, name="count")


def repointed(ctx: Context, node: ast.AST, error: CompileError) -> CompileError:
    """Return *error* as one at *node*, unless it has a place of its own."""
    return error if error.line else ctx.error(node, error.what, error.hint)
