"""Going on after a mistake, so that one run shows all of them.

A statement with a mistake is given up, and the names that it assigns are poisoned: a statement that reads one of them
is given up too, without a message, since the mistake is known. What stands inside of a compound statement is compiled
all the same. Nothing of such a pass is kept but its messages.
"""

from __future__ import annotations

import ast

from kprobes.compiler.front.scan import yields
from kprobes.errors import CompileError
from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kprobes.compiler.front.context import Context


class PoisonedError(Exception):
    """A statement needs a name whose own statement has a mistake: it has no meaning, and needs no message."""


class Mistakes:
    """The mistakes of one pass, each told once, and the names that they poison.

    *given_up* counts the statements without meaning. With *yields_refused* the handler's yields are a known mistake.
    """

    def __init__(self) -> None:
        self.errors: list[CompileError] = []
        self.given_up = 0
        self.yields_refused = False
        self._poisoned: set[str] = set()

    def add(self, error: CompileError) -> None:
        """Keep *error*, unless the same one is known: a function may be inlined many times."""
        self.given_up += 1
        if all(identity(error) != identity(known) for known in self.errors):
            self.errors.append(error)

    def poison(self, key: str) -> None:
        """Let nothing that needs the name *key* be told of."""
        self._poisoned.add(key)

    def check(self, key: str) -> None:
        """Raise PoisonedError where the name *key* has no meaning."""
        if key in self._poisoned:
            raise PoisonedError(key)


def identity(error: CompileError) -> tuple[str, int, int, str]:
    """Return what tells *error* from others."""
    return error.file, error.line, error.column, error.what


@dataclass(frozen=True, slots=True)
class Footing:
    """Where a statement began: whether anything reaches it, in how many loops, of how many turns."""

    reached: bool
    loops: int
    turns: int


def footing(ctx: Context) -> Footing:
    """Return where *ctx* stands now."""
    return Footing(ctx.build.current.reached, len(ctx.frame.loops), ctx.turns)


def guarded(ctx: Context, statement: ast.AST, make: Callable[[], object]) -> None:
    """Run *make*, which compiles *statement*; where it can't, keep the mistake and go on behind the statement."""
    before = footing(ctx)
    try:
        make()
    except CompileError as error:
        ctx.mistakes.add(error)
        recover(ctx, statement, before)
    except PoisonedError:
        ctx.mistakes.given_up += 1
        recover(ctx, statement, before)


def all_made(ctx: Context, makers: Iterable[Callable[[], object]]) -> None:
    """Run all of *makers*, whatever mistakes they find; after any the statement is given up.

    Raises:
        PoisonedError: one found a mistake, which is kept, or needs a name without meaning.
    """
    known = ctx.mistakes.given_up
    for make in makers:
        try:
            make()
        except CompileError as error:
            ctx.mistakes.add(error)
        except PoisonedError:
            ctx.mistakes.given_up += 1
    if ctx.mistakes.given_up != known:
        raise PoisonedError


def recover(ctx: Context, statement: ast.AST, before: Footing) -> None:
    """Go on behind *statement*, which has no meaning: poison what it assigns, compile what stands inside of it."""
    ctx.settled = False
    ctx.turns = before.turns
    del ctx.frame.loops[before.loops :]
    for name in _names_bound(statement):
        ctx.mistakes.poison(ctx.frame.scope + name)
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for body in _bodies(statement):
            _on_new_ground(ctx, reached=True)
            if isinstance(statement, ast.For | ast.AsyncFor | ast.While):
                ctx.enter_lost_loop(statement)
            ctx.run(body)
            del ctx.frame.loops[before.loops :]
    _on_new_ground(ctx, reached=before.reached)


def _on_new_ground(ctx: Context, *, reached: bool) -> None:
    block = ctx.build.new_block("lost")
    block.reached = reached
    ctx.build.place_block(block)


def _bodies(statement: ast.AST) -> Iterable[list[ast.stmt]]:
    """Return the bodies of a compound statement, in the order of the text."""
    inner = [getattr(statement, "body", [])]
    inner += [one.body for one in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ()))]
    inner += [getattr(statement, name, []) for name in ("orelse", "finalbody")]
    return [body for body in inner if body]


def _names_bound(statement: ast.AST) -> Iterable[str]:
    """Return the names that *statement* itself gives a meaning to, without those of statements inside of it."""
    inside = {id(one) for body in _bodies(statement) for one in body}
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    pending, found = [statement], []
    while pending:
        node = pending.pop()
        pending += [child for child in ast.iter_child_nodes(node) if id(child) not in inside]
        found += _bound_by(node)
    return found


def _bound_by(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [node.id]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    name = getattr(node, "rest", None) if isinstance(node, ast.MatchMapping) else getattr(node, "name", None)
    if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar | ast.MatchMapping) and name:
        return [name]
    return []


def refuse_lost_yield(ctx: Context, statement: ast.stmt) -> None:
    """Raise PoisonedError where *statement* yields and that is a known mistake."""
    header = [node for node in ast.iter_child_nodes(statement) if not isinstance(node, ast.stmt)]
    if ctx.mistakes.yields_refused and yields(header):
        raise PoisonedError
