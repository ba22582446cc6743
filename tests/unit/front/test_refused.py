"""Every kind of node of Python's grammar is either part of the language or refused with a reason and a hint."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import kprobes.compiler.front.compile as front
from front.cases import compile_text
from kprobes.errors import CompileError

# Kind of node -> statements that hold one. Those marked with ! are refused.
STATEMENTS = {
    "FunctionDef": ["!def f():\n    pass"],
    "AsyncFunctionDef": ["!async def f():\n    pass"],
    "ClassDef": ["!class C:\n    pass"],
    "Return": ["return", "return None", "!return 5"],
    "Delete": ["del opened[5]", "!del count", "!del file.f_flags"],
    "Assign": ["x = 5", "x = y = 5", "x, y = 1, 2", "!file.f_flags = 5", "!file.f_flags, x = 1, 2", "!x, y = 1, 2, 3"],
    "TypeAlias": ["!type X = int"],
    "AugAssign": ["count += 1", "opened[1] += 1", "!file.f_flags += 1", "!count @= 1", "!count /= 2", "!nowhere += 1"],
    "AnnAssign": ["x: int = 5", "x: int", "!file.f_flags: int = 5"],
    "For": ["for i in range(3):\n    pass", "for i in (1, 2):\n    pass", "!for i in count:\n    pass",
            "!for i in range(count):\n    pass", "!for i in range(0, 4, 0):\n    pass", "!for i in range():\n    pass"],
    "AsyncFor": ["!async for i in x:\n    pass"],
    "While": ["while count:\n    count -= 1", "!while calls:\n    pass"],
    "If": ["if 1:\n    pass", "if count:\n    pass\nelse:\n    pass", "!if calls:\n    pass", "!if emit:\n    pass"],
    "With": ["!with file as f:\n    pass", "!with file:\n    pass"],
    "AsyncWith": ["!async with file:\n    pass"],
    "Match": ["!match count:\n    case 1:\n        pass"],
    "Raise": ["!raise", "!raise ValueError", "!raise ValueError(1) from None"],
    "Try": ["!try:\n    pass\nexcept OSError:\n    pass", "try:\n    pass\nfinally:\n    pass"],
    "TryStar": ["!try:\n    pass\nexcept* OSError:\n    pass"],
    "Assert": ["assert count", "assert count, 'text'"],
    "Import": ["!import os", "!import os.path as p"],
    "ImportFrom": ["!from os import path", "!from os import path as p, sep"],
    "Global": ["!global PORTS"],
    "Nonlocal": ["!nonlocal PORTS"],
    "Expr": ["'a remark'", "emit(1)", "!count", "!1", "!file.f_flags", "!comm()", "!calls.add", "!now"],
    "Pass": ["pass"],
    "Break": ["for i in range(2):\n    break"],
    "Continue": ["for i in range(2):\n    continue"],
}  # fmt: skip

EXPRESSIONS = {
    "BoolOp": ["count and 1", "count or 1", "!count and 'x'", "!calls or 1"],
    "NamedExpr": ["(x := count)", "!(x := calls)"],
    "BinOp": ["count + 1", "count - 1", "count * 2", "count // 2", "count % 2", "count << 1", "count >> 1", "count & 1",
              "count | 1", "count ^ 1", "2 ** 3", "file + 1", "!count / 2", "!count @ 2", "!count ** 2", "!2 ** count",
              "!count + calls", "!count + emit", "!file * 2", "!count + None", "!count + (1, 2)", "!count << 64",
              "!count // 0", "!2 ** 99", "!1 << -1", "!1 << 99"],
    "UnaryOp": ["-count", "+count", "~count", "not count", "!-calls", "!~file", "!not calls"],
    "Lambda": ["!lambda: 1", "!(lambda x: x)(1)"],
    "IfExp": ["1 if count else 2", "!1 if count else 'x'", "!1 if calls else 2"],
    "Dict": ["!{}", "!{1: 2}", "!{**TABLE}"],
    "Set": ["!{1}"],
    "ListComp": ["![i for i in range(3)]"],
    "SetComp": ["!{i for i in range(3)}"],
    "DictComp": ["!{i: i for i in range(3)}"],
    "GeneratorExp": ["!(i for i in range(3))", "!max(i for i in range(3))"],
    "Await": ["!await count"],
    "Yield": ["!(yield)", "!(yield count)"],
    "YieldFrom": ["!(yield from PORTS)"],
    "Compare": ["count == 1", "count != 1", "count < 1", "count <= 1", "count > 1", "count >= 1", "file is None",
                "file is not None", "count in (1, 2)", "count not in (1, 2)", "0 < count < 5", "!count is 5",
                "!count == 'x'", "!count < calls", "!file == 'x'", "!count in 5", "!emit == 5", "!(1, 2) < (3, 4)"],
    "Call": ["pid()", "max(count, 1)", "double(count)", "!count()", "!None()", "!calls()", "!file.f_flags()",
             "!print(1)", "!max()", "!pid(1)", "!double()", "!double(1, 2)", "!double(y=1)", "!double(*PORTS)",
             "!double(**TABLE)", "!double(1, x=2)", "!input()", "!str(count)", "!range(3)", "!log('x').y",
             "!cast(1)", "!cast(1, 'nope')", "!arg(count)", "!file.string(count)", "!count.to_bytes(4)"],
    "FormattedValue": ["f'{count}'", "f'{count:>8}'", "!f'{calls}'", "!f'{comm():d}'", "!f'{count:{count}}'"],
    "JoinedStr": ["f'text'", "f'{count} and {comm}'"],
    "TemplateStr": ["!t'text'"],
    "Interpolation": ["!t'{count}'"],
    "Constant": ["1", "True", "None", "'x'", "!1.5", "!1j", "!b'x'", "!...", "!2 ** 64 + 1"],
    "Attribute": ["file.f_flags", "regs.di", "errno.ENOENT", "!file.nope", "!count.x", "!calls.x", "!calls.add",
                  "!regs.nope", "!errno.NOPE", "!emit.x", "!nothing.x", "!comm().x", "!PORTS.x", "!None.x"],
    "Subscript": ["buf[0]", "PORTS[0]", "opened[1]", "!count[0]", "!PORTS[count]", "!PORTS[99]", "!calls[1]",
                  "!file['f_flags']", "!opened['x']", "!emit[0]", "!regs[0]", "!errno[0]"],
    "Starred": ["!(*PORTS, 1)", "![*PORTS]"],
    "Name": ["count", "comm", "!nowhere", "!print", "!__name__", "!self", "!emit", "!calls"],
    "List": ["![1, 2]"],
    "Tuple": ["(1, 2) == (1, 2)", "!(1, 2)"],
    "Slice": ["!buf[1:2]", "!PORTS[1:2]", "!count[1:2]"],
}  # fmt: skip

# Kinds that Python has for its own use or from before 3.8, and bases.
NEVER_PARSED = {"Num", "Str", "Bytes", "NameConstant", "Ellipsis", "expr", "stmt"}


def kinds_of(base: type[ast.AST]) -> set[str]:
    return {kind.__name__ for kind in base.__subclasses__()} - NEVER_PARSED


def test_every_kind_of_statement_and_expression_is_in_the_table():
    assert kinds_of(ast.stmt) <= STATEMENTS.keys()
    assert kinds_of(ast.expr) <= EXPRESSIONS.keys()


def operators_in(sources: list[str]) -> set[str]:
    trees = [ast.parse(one.lstrip("!")) for one in sources]
    found = (node for tree in trees for node in ast.walk(tree))
    return {
        type(node).__name__ for node in found if isinstance(node, ast.operator | ast.cmpop | ast.boolop | ast.unaryop)
    }


def test_every_operator_is_in_the_table():
    known = operators_in([one for kind in ("BinOp", "UnaryOp", "BoolOp", "Compare") for one in EXPRESSIONS[kind]])
    assert known == {
        kind.__name__ for base in (ast.operator, ast.cmpop, ast.boolop, ast.unaryop) for kind in base.__subclasses__()
    }


def snippets() -> list[tuple[str, str, bool]]:
    """Return (kind, body of a handler, whether it is refused) for what this Python can parse."""
    found = []
    for kind, sources in STATEMENTS.items():
        found += [(kind, one.lstrip("!"), one.startswith("!")) for one in sources]
    for kind, sources in EXPRESSIONS.items():
        found += [(kind, f"emit({one.lstrip('!')})", one.startswith("!")) for one in sources]
    return [one for one in found if hasattr(ast, one[0])]


@pytest.mark.parametrize(("kind", "body", "refused"), snippets())
def test_it_is_compiled_or_refused_with_a_reason_and_a_hint(kind, body, refused):
    source = "def h(file, buf, count):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    parsed = [node for node in ast.walk(ast.parse(source.replace("await", "await "))) if type(node).__name__ == kind]
    assert parsed, "the snippet holds no such node"
    try:
        compile_text(source)
    except CompileError as error:
        for one in error.mistakes:
            assert one.what
            assert "internal" not in one.what
            assert kind not in one.what.split(), "the name of a class of `ast` says nothing to a user"
            assert one.hint, one.what
            assert "internal" not in one.hint
            assert one.source.strip()
            assert 10 <= one.line <= 10 + source.count("\n")
            assert one.column <= len(one.source)
    else:
        assert not refused, "this is compiled"


def test_every_message_of_the_front_is_given_a_hint():
    bare = []
    for path in sorted(Path(front.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr != "error" or ast.unparse(node.func.value) not in ("ctx", "self", "self.ctx"):
                continue
            given = [*node.args[2:], *(word.value for word in node.keywords if word.arg == "hint")]
            if not given or any(isinstance(one, ast.Constant) and not one.value for one in given):
                bare.append(f"{path.name}:{node.lineno}: {ast.unparse(node.args[1])}")
    assert not bare
