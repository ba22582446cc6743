"""The handler's own function, made to run in plain Python.

Its text is compiled again under its own file name and line numbers, with the few expressions replaced that mean
something else in a handler: `is None`, words without parentheses, `emit`, integers that are assigned, and loops, which
are bounded. So a debugger, coverage and tracebacks show the user's lines.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Mapping
from copy import deepcopy
from types import FunctionType, ModuleType
from typing import Any

from kprobes.compiler.front.events import name_of
from kprobes.compiler.front.names import word_of
from kprobes.compiler.front.text import SourceText
from kprobes.frozen import dataclass
from kprobes.model.builtins import BUILTINS
from kprobes.model.mapspec import MapSpec
from kprobes.model.probe import HandlerSource
from kprobes.model.registered import Instance, Registered
from kprobes.model.setting import Setting
from kprobes.testing.numbers import Truth, fault, keep
from kprobes.testing.values import is_null

_MISSING = object()
_CO_GENERATOR = 0x20
_WORDS_AS_PARAMETERS = frozenset({"regs", "retval"})
MOST_TURNS = 1024

Adapt = Callable[[object], Any]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A handler or helper as a *function*; *everything* is its parameter that stands for all arguments, if any."""

    function: Callable[..., Any]
    everything: str = ""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its parameters."""
        code = self.function.__code__
        return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]

    @property
    def is_split(self) -> bool:
        """Whether it has a `yield`."""
        return bool(self.function.__code__.co_flags & _CO_GENERATOR)


def rewritten(
    source: HandlerSource, adapt: Adapt, enumerator: Callable[[str], int | None], *, called: bool = False
) -> Rewritten:
    """Return *source* as a function of its parameters by name; *called*: it is called by the handler.

    *adapt* gives what stands for a word (by its name), a map or a helper function; *enumerator* the value of an enum
    constant of the target.

    Raises:
        CompileError: the text is no function.
    """
    text = SourceText(source)
    rewriter = _Rewriter(text, source.names, adapt, enumerator)
    rewriter.words = frozenset() if called else _WORDS_AS_PARAMETERS
    definition = rewriter.function(deepcopy(text.definition))
    for node in ast.walk(definition):
        if isinstance(node, ast.stmt | ast.expr | ast.arg | ast.keyword):
            node.lineno += source.line - 1
            node.end_lineno = (node.end_lineno or 1) + source.line - 1
            node.col_offset += source.indent
            node.end_col_offset = (node.end_col_offset or 0) + source.indent
    tree = ast.fix_missing_locations(ast.Module([definition], []))
    exec(compile(tree, source.file, "exec", dont_inherit=True), rewriter.globals)  # noqa: S102 - the user's handler
    return Rewritten(rewriter.globals[definition.name], rewriter.everything)


class _Rewriter(ast.NodeTransformer):
    """Replaces nodes of one function; *globals* are the names that it will see."""

    def __init__(
        self,
        text: SourceText,
        names: Mapping[str, object],
        adapt: Adapt,
        enumerator: Callable[[str], int | None],
    ) -> None:
        self.text = text
        self.names = names
        self.adapt = adapt
        self.enumerator = enumerator
        self.locals: set[str] = set()
        self.everything = ""
        self.words = _WORDS_AS_PARAMETERS
        self.loops = 0
        turns: dict[int, int] = {}
        self.globals: dict[str, Any] = {
            "__name__": names.get("__name__", "handler"),
            "__kp_keep": keep,
            "__kp_null": is_null,
            "__kp_truth": lambda value: Truth(value) if isinstance(value, bool) else value,
            "__kp_each": lambda items: map(keep, items),
            "__kp_loop": lambda number: turns.__setitem__(number, 0),
            "__kp_turn": lambda number, test: _turn(turns, number, test),
        }

    def function(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Return *node* with its body replaced, without decorators and annotations."""
        spec = node.args
        if spec.kwarg:  # it stands for all arguments, which it gives as attributes too
            self.everything = spec.kwarg.arg
            spec.kwonlyargs.append(spec.kwarg)
            spec.kw_defaults.append(None)
            spec.kwarg = None
        spec.args = [one for one in spec.args if one.arg not in self.words]
        parameters = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
        for one in parameters:
            one.annotation = None
        spec.defaults = [self.visit(one) for one in spec.defaults]
        spec.kw_defaults = [one and self.visit(one) for one in spec.kw_defaults]
        node.returns = None
        node.decorator_list = []
        self.locals = {one.arg for one in parameters}
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                self.locals.add(inner.id)
        node.body = [statement for one in node.body for statement in self._statements(one)]
        return node

    def _statements(self, node: ast.stmt) -> list[ast.stmt]:
        found = self.visit(node)
        return found if isinstance(found, list) else [found]

    # Names.

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """A name outside of the handler."""
        if isinstance(node.ctx, ast.Load):
            return self._outside(node) or node
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """A word, map or function by way of its module, or an attribute."""
        if isinstance(node.ctx, ast.Load):
            found = self._outside(node)
            if found is not None:
                return found
        node.value = self.visit(node.value)
        return node

    def _outside(self, node: ast.Name | ast.Attribute) -> ast.expr | None:
        thing = self._resolved(node)
        if thing is _MISSING:
            return None
        word = self._word(thing)
        if word:
            called = self._hold(node, self.adapt(word))
            return self._call(node, called, []) if BUILTINS[word].bare else called
        if isinstance(thing, Setting):
            return self._hold(node, thing.default)
        if isinstance(thing, FunctionType | MapSpec | Setting | Registered | Instance):
            return self._hold(node, self.adapt(thing))
        return self._hold(node, thing) if isinstance(node, ast.Name) else None

    def _word(self, thing: object) -> str:
        return thing.id if isinstance(thing, ast.Name) else word_of(thing)

    def _resolved(self, node: ast.expr) -> object:
        """Return what *node* names outside of the handler; a bare `ast.Name` for a word that was never imported."""
        if isinstance(node, ast.Attribute):
            owner = self._resolved(node.value)
            return getattr(owner, node.attr, _MISSING) if isinstance(owner, ModuleType | type) else _MISSING
        if not isinstance(node, ast.Name) or node.id in self.locals:
            return _MISSING
        if node.id in self.names:
            return self.names[node.id]
        if node.id in BUILTINS:
            return node
        if hasattr(builtins, node.id):
            return getattr(builtins, node.id)
        value = self.enumerator(node.id)
        return _MISSING if value is None else value

    def _hold(self, node: ast.expr, thing: object) -> ast.expr:
        name = f"__kp_{len(self.globals)}"
        self.globals[name] = thing
        return ast.copy_location(ast.Name(name, ast.Load()), node)

    # Calls.

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """`emit`, which names its values, and words, which need no call of their own here."""
        thing = self._resolved(node.func)
        word = self._word(thing) if thing is not _MISSING else ""
        if word == "emit" and not (len(node.args) == 1 and isinstance(node.args[0], ast.JoinedStr)):
            return self._emit(node)
        if word:
            node.func = self._hold(node.func, self.adapt("log" if word == "emit" else word))
        else:
            node.func = self.visit(node.func)
        node.args = [self.visit(one) for one in node.args]
        node.keywords = [self.visit(one) for one in node.keywords]
        return node

    def _emit(self, node: ast.Call) -> ast.expr:
        pairs: list[ast.expr] = []
        for index, one in enumerate(node.args):
            if isinstance(one, ast.Starred):  # *args
                pairs.append(ast.Starred(self._pairs_of(one.value), ast.Load()))
            else:
                named = ast.Constant(name_of(self.text, one, index))
                pairs.append(ast.Tuple([named, self.visit(one)], ast.Load()))
        for keyword in node.keywords:
            if keyword.arg is None:
                pairs.append(ast.Starred(self._pairs_of(keyword.value), ast.Load()))
            else:
                pairs.append(ast.Tuple([ast.Constant(keyword.arg), self.visit(keyword.value)], ast.Load()))
        return self._call(node, self._hold(node, self.adapt("emit")), [ast.Tuple(pairs, ast.Load())])

    def _pairs_of(self, node: ast.expr) -> ast.expr:
        """Return what gives the (name, value) pairs of all arguments, which *node* stands for."""
        return ast.Call(ast.Attribute(self.visit(node), "pairs", ast.Load()), [], [])

    def _call(self, node: ast.AST, called: ast.expr, arguments: list[ast.expr]) -> ast.expr:
        made = ast.copy_location(ast.Call(called, arguments, []), node)
        for inner in ast.walk(made):
            if isinstance(inner, ast.expr) and not hasattr(inner, "lineno"):
                ast.copy_location(inner, node)
        return made

    def _helper(self, node: ast.AST, name: str, *arguments: ast.expr) -> ast.expr:
        return self._call(node, ast.Name(name, ast.Load()), list(arguments))

    # What is different in a handler.

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """`p is None`: the null pointer."""
        self.generic_visit(node)
        sides = (node.left, node.comparators[0])
        nothing = [isinstance(one, ast.Constant) and one.value is None for one in sides]
        if len(node.ops) != 1 or not any(nothing) or not isinstance(node.ops[0], ast.Is | ast.IsNot):
            return self._helper(node, "__kp_truth", node)
        asked = self._helper(node, "__kp_null", sides[0] if nothing[1] else sides[1])
        negated = isinstance(node.ops[0], ast.IsNot)
        found = ast.copy_location(ast.UnaryOp(ast.Not(), asked), node) if negated else asked
        return self._helper(node, "__kp_truth", found)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        """`not x`: a number where one is wanted."""
        self.generic_visit(node)
        return self._helper(node, "__kp_truth", node) if isinstance(node.op, ast.Not) else node

    def visit_Assign(self, node: ast.Assign) -> ast.stmt:
        """A local has 64 bits."""
        self.generic_visit(node)
        if not isinstance(node.value, ast.Yield):
            node.value = self._helper(node.value, "__kp_keep", node.value)
        return node

    def visit_NamedExpr(self, node: ast.NamedExpr) -> ast.expr:
        """So has one that is assigned in passing."""
        node.value = self._helper(node.value, "__kp_keep", self.visit(node.value))
        return node

    def visit_For(self, node: ast.For) -> ast.stmt:
        """And one that a loop assigns."""
        self.generic_visit(node)
        node.iter = self._helper(node.iter, "__kp_each", node.iter)
        return node

    def visit_While(self, node: ast.While) -> list[ast.stmt]:
        """Loops end."""
        self.generic_visit(node)
        self.loops += 1
        number = ast.Constant(self.loops)
        before = ast.copy_location(ast.Expr(self._helper(node.test, "__kp_loop", number)), node.test)
        node.test = self._helper(node.test, "__kp_turn", number, node.test)
        return [before, node]


def _turn(turns: dict[int, int], number: int, test: object) -> bool:
    if not test:
        return False
    turns[number] += 1
    if turns[number] > MOST_TURNS:
        fault()
        return False
    return True
