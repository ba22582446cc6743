"""Claims about the language as a whole: nothing outside of it gets through, its parts fit together."""

import ast

import pytest

from front.cases import GOLDEN, compile_text, read_cases, surroundings
from front.universe import NAMES, Universe
from kprobes.compiler.front import expressions, statements
from kprobes.compiler.front.abi import integer_indexes
from kprobes.compiler.front.compile import compile_handler
from kprobes.compiler.ir import usage
from kprobes.compiler.ir.nodes import Emit, ReadContext
from kprobes.errors import CompileError
from kprobes.model import words
from kprobes.model.mapspec import Count, HashMap, Histogram
from kprobes.model.probe import HandlerSource

STATEMENTS = {
    ast.FunctionDef: "def f(): pass", ast.AsyncFunctionDef: "async def f(): pass", ast.ClassDef: "class A: pass",
    ast.Return: "return", ast.Delete: "del opened[1]", ast.Assign: "x = 1", ast.AugAssign: "opened[1] += 1",
    ast.AnnAssign: "x: int = 1", ast.For: "for i in range(2): pass", ast.AsyncFor: "async for i in x: pass",
    ast.While: "while pid: pass", ast.If: "if pid: pass", ast.With: "with x: pass", ast.AsyncWith: "async with x: pass",
    ast.Match: "match pid:\n        case 1: pass", ast.Raise: "raise x", ast.Try: "try: pass\n    finally: pass",
    ast.TryStar: "try: pass\n    except* OSError: pass", ast.Assert: "assert pid", ast.Import: "import os",
    ast.ImportFrom: "from os import path", ast.Global: "global x", ast.Nonlocal: "nonlocal opened", ast.Expr: "emit(1)",
    ast.Pass: "pass", ast.Break: "for i in range(2): break", ast.Continue: "for i in range(2): continue",
}  # fmt: skip
EXPRESSIONS = {
    ast.BoolOp: "pid and tid", ast.NamedExpr: "(y := pid)", ast.BinOp: "pid + 1", ast.UnaryOp: "-pid",
    ast.Lambda: "lambda: 1", ast.IfExp: "1 if pid else 2", ast.Dict: "{1: 2}", ast.Set: "{1}",
    ast.ListComp: "[i for i in x]", ast.SetComp: "{i for i in x}", ast.DictComp: "{i: i for i in x}",
    ast.GeneratorExp: "(i for i in x)", ast.Await: "await x", ast.Yield: "(yield)", ast.YieldFrom: "(yield from x)",
    ast.Compare: "pid < 1", ast.Call: "pid()", ast.FormattedValue: "f'{pid}'", ast.JoinedStr: "f'x'",
    ast.Constant: "1", ast.Attribute: "file.f_pos", ast.Subscript: "PORTS[0]", ast.Starred: "*PORTS",
    ast.Name: "pid", ast.List: "[1]", ast.Tuple: "(1, 2)[0]", ast.Slice: "PORTS[1:2]",
}  # fmt: skip
OPERATORS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.MatMult: "@", ast.Div: "/", ast.Mod: "%", ast.Pow: "**",
    ast.LShift: "<<", ast.RShift: ">>", ast.BitOr: "|", ast.BitXor: "^", ast.BitAnd: "&", ast.FloorDiv: "//",
}  # fmt: skip
COMPARISONS = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Is: "is",
    ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
# Classes that only old Pythons make, and those that only later ones have, which are refused like anything unknown.
OTHERS = {"Num", "Str", "Bytes", "NameConstant", "Ellipsis", "TypeAlias", "TemplateStr", "Interpolation"}


def kinds(base):
    return {kind for kind in base.__subclasses__() if kind.__name__ not in OTHERS}


def verdict(text, around="kprobe vfs_read"):
    """Return "fine" or "refused"; anything else is a bug and comes through."""
    try:
        compile_text(text, around)
    except CompileError as error:
        return "refused" if error.line and error.source else f"refused without a place: {error}"
    return "fine"


def test_each_statement_of_python_is_supported_or_refused():
    assert set(STATEMENTS) == kinds(ast.stmt)
    for kind, text in STATEMENTS.items():
        wanted = "refused" if kind in statements.REFUSED else "fine"
        assert verdict(f"def h(file):\n    {text}\n") == wanted, text


def test_each_expression_of_python_is_supported_or_refused():
    assert set(EXPRESSIONS) == kinds(ast.expr)
    for kind, text in EXPRESSIONS.items():
        wanted = "refused" if kind in expressions.REFUSED else "fine"
        assert verdict(f"def h(file):\n    x = {text}\n") == wanted, text


def test_each_operator_of_python_is_supported_or_refused():
    assert set(OPERATORS) == kinds(ast.operator)
    refused = {text for text in OPERATORS.values() if verdict(f"def h():\n    emit(pid {text} tid)\n") == "refused"}
    assert refused == {"@", "/", "**"}


def test_each_comparison_of_python_is_supported_or_refused():
    assert set(COMPARISONS) == kinds(ast.cmpop)
    refused = {text for text in COMPARISONS.values() if verdict(f"def h():\n    emit(pid {text} tid)\n") == "refused"}
    assert refused == {"is", "is not", "in", "not in"}
    assert (
        verdict("def h(file):\n    emit(file is None, file is not None, pid in (1, 2), pid not in opened)\n") == "fine"
    )


def test_each_unary_operator_is_supported():
    assert kinds(ast.unaryop) == {ast.Invert, ast.Not, ast.UAdd, ast.USub}
    assert verdict("def h():\n    emit(~pid, not pid, +pid, -pid)\n") == "fine"


def test_words_work_imported_under_another_name():
    handler = compile_text("def h():\n    emit(clock())\n", clock=words.now)
    assert handler.events[0].fields[0].size == 8


def test_words_work_as_attributes_of_the_package():
    import kprobes

    handler = compile_text("def h():\n    emit(kp.now(), kp.pid, kp.regs.di, kp.current.pid)\n", kp=kprobes)
    assert [field.name for field in handler.events[0].fields] == ["kp.now", "kp.pid", "kp.regs.di", "kp.current.pid"]


def test_maps_do_not_take_names_of_the_engines():
    with pytest.raises(CompileError, match=r"can't be called '\.stacks'"):
        compile_text("def h():\n    m.add()\n", m=Count(".stacks"))


def test_user_names_come_before_words():
    handler = compile_text("def h():\n    cpu = 3\n    emit(cpu)\n")
    assert not any(type(node).__name__ == "Builtin" for node in usage.nodes_of(handler))


def test_two_maps_of_one_name_are_refused():
    with pytest.raises(CompileError, match="two maps are called 'calls'"):
        compile_text("def h():\n    calls.add()\n    other.add()\n", other=Count("calls"))


def test_two_handlers_share_a_map_object_and_not_a_name():
    maps = {}
    shared = HashMap("shared")
    around = surroundings("kprobe vfs_read")

    def compile_one(spec):
        source = HandlerSource("h", "def h():\n    m[1] = 2\n", names={"m": spec})
        return compile_handler(source, around, maps)

    assert compile_one(shared).maps == compile_one(shared).maps
    with pytest.raises(CompileError, match="two maps are called 'shared'"):
        compile_one(HashMap("shared"))


def test_a_bad_histogram_is_refused_on_the_line_that_uses_it():
    with pytest.raises(CompileError, match="no range of 1 to 1,024 steps") as caught:
        compile_text("def h():\n    wrong.add(1)\n", wrong=Histogram("wrong", linear=(5, 5, 1)))
    assert caught.value.line == 11


def test_events_are_numbered_from_the_first_free_one_without_gaps():
    source = HandlerSource("h", "def h():\n    if False:\n        emit(a=1)\n    emit(b=pid())\n    emit(c=1)\n")
    around = surroundings("kprobe vfs_read")
    handler = compile_handler(source, type(around)(**{**_fields(around), "first_event_id": 7}))
    assert [event.id for event in handler.events] == [7, 8]
    assert [node.event for node in usage.nodes_of(handler) if isinstance(node, Emit)] == [7, 8]


def _fields(around):
    return {name: getattr(around, name) for name in type(around).__slots__}


def test_usage_tells_what_a_handler_needs():
    handler = compile_text("def h(count):\n    emit(regs.di, count, stack())\n")
    assert usage.uses_registers(handler)
    assert usage.most_arguments(handler) == 3
    assert usage.uses_arguments(handler)
    assert usage.uses_stacks(handler)
    assert not usage.uses_return(handler)
    assert not usage.reads_memory(handler)
    assert not usage.changes_target(handler)
    plain = compile_text("def h():\n    calls.add()\n")
    assert not usage.uses_registers(plain)
    assert usage.most_arguments(plain) == 0
    returning = compile_text("def h(file):\n    emit(retval, file.f_pos)\n", "kretprobe vfs_read")
    assert usage.uses_return(returning)
    assert usage.reads_memory(returning)


def test_places_are_those_of_the_file():
    handler = compile_text("def h():\n    emit(1)\n")
    places = {node.place for node in usage.nodes_of(handler) if isinstance(node, Emit)}
    assert [(place.line, place.column) for place in places] == [(11, 8)]
    assert handler.lines[11] == "        emit(1)"


def test_float_and_memory_parameters_do_not_take_integer_registers():
    types = Universe()
    assert integer_indexes(types.function("mixed"), types) == (0, None, 1, None, 2)
    assert integer_indexes(types.function("make_big"), types) == (1,)


def test_parameters_in_any_order_and_subset_read_their_own_registers():
    handler = compile_text("def h(pos, file):\n    emit(pos, file)\n")
    reads = [node.index for node in usage.nodes_of(handler) if isinstance(node, ReadContext)]
    assert sorted(reads) == [0, 3]


def test_emitted_operands_have_the_size_of_their_fields():
    for path in sorted(GOLDEN.glob("*.golden")):
        for case in read_cases(path):
            if path.stem.startswith("errors"):
                continue
            handler = compile_text(case.source, case.around)
            sizes = {event.id: [field.size for field in event.fields] for event in handler.events}
            for node in usage.nodes_of(handler):
                if isinstance(node, Emit):
                    found = [one.size if one.type is None else one.type.bits // 8 for one in node.operands]
                    assert found == sizes[node.event], case.name


def test_a_handler_that_expands_without_end_is_refused_where_it_grows():
    loops = "".join(f"{'    ' * (depth + 1)}for a{depth} in MANY:\n" for depth in range(4))
    with pytest.raises(CompileError, match="too large") as caught:
        compile_text(f"def h(count):\n{loops}{'    ' * 5}emit(a0 + a3 + count)\n", MANY=tuple(range(60)))
    assert caught.value.line == 15


def test_deep_nesting_is_refused_and_no_crash():
    for text in (
        "1" + " + count" * 5000,
        "(" * 150 + "count" + ")" * 150,
        "-" * 900 + "count",
        "not " * 2000 + "count",
    ):
        assert verdict(f"def h(count):\n    emit({text})\n") in ("fine", "refused")


def test_names_of_the_tests_are_what_handlers_see():
    assert NAMES["comm"] is words.comm


def test_what_a_fault_brings_along_is_there_on_faults_only():
    for word, bits in (("fault_signal", 32), ("fault_address", 64)):
        text = f"def h():\n    emit(found={word})\n"
        with pytest.raises(CompileError, match=f"{word}.. without a fault"):
            compile_text(text, "uprobe main mid")
        (event,) = compile_text(text, "uprobe main mid fault").events
        assert event.fields[-1].size * 8 == bits


def test_a_fault_handler_has_no_second_half():
    with pytest.raises(CompileError, match="no second half"):
        compile_text("def h():\n    x = pid\n    yield\n    emit(x)\n", "uprobe main mid fault")
