"""After a mistake the front goes on: all mistakes are told at once, each once, and nothing ever breaks on the way."""

from __future__ import annotations

import ast

import pytest

from front.cases import GOLDEN, compile_text, read_cases
from kprobes.errors import CompileError

CASES = [case for path in sorted(GOLDEN.glob("*.golden")) for case in read_cases(path)]


def mistakes(source: str, around: str = "kprobe vfs_read", **names: object) -> list[CompileError]:
    """Return the mistakes in *source*, as they are told."""
    try:
        compile_text(source, around, **names)
    except CompileError as error:
        return list(error.mistakes)
    return []


def mutants(source: str) -> list[str]:
    """Return *source* with each of its names in turn replaced by one that nobody knows."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    lines = source.encode().splitlines(keepends=True)
    found = []
    for node in names:
        changed = list(lines)
        line = lines[node.lineno - 1]
        changed[node.lineno - 1] = line[: node.col_offset] + b"zzqq" + line[node.end_col_offset :]
        found.append(b"".join(changed).decode())
    return found


@pytest.mark.parametrize("part", range(4))
def test_one_unknown_name_anywhere_is_told_and_nothing_breaks(part):
    """Errors other than CompileError would pass through."""
    tried = 0
    for case in CASES[part::4]:
        known = {(one.line, one.what) for one in mistakes(case.source, case.around)}
        for mutant in mutants(case.source):
            tried += 1
            found = mistakes(mutant, case.around)
            new = [one for one in found if (one.line, one.what) not in known]
            assert len([one for one in found if "'zzqq'" in one.what]) <= 2, mutant  # one each for read and assigned
            assert all(one.source.strip() for one in found), mutant
            if not known:
                # what was sound has one mistake now, and at most one more: a name is no longer assigned, or used twice
                assert len({one.what for one in new}) <= 3, (mutant, [str(one) for one in new])
    assert tried > 100


def bodies() -> list[tuple[str, str]]:
    """Return (body, message) of the golden mistakes of one handler's statements."""
    found = []
    for case in read_cases(GOLDEN / "errors.golden"):
        head, _, body = case.source.partition("\n")
        if case.around == "kprobe vfs_read" and head.startswith("def h(") and "=" not in head and "fille" not in head:
            found.append((body, case.expected.partition("\n")[0].partition(": ")[2]))
    return found


def test_two_handlers_worth_of_mistakes_in_one_are_both_told():
    head = "def h(file, buf, count):\n"
    alone = [(body, [one.what for one in mistakes(head + body)]) for body, _ in bodies()]
    alone = [(body, told) for body, told in alone if told and not names_in(body) & {"x", "f", "y", "i"}]
    assert len(alone) > 40
    for number, (body, told) in enumerate(alone):
        other, other_told = alone[(number * 7 + 3) % len(alone)]
        inner = "".join(f"    {line}\n" for line in other.rstrip().splitlines())
        both = {one.what for one in mistakes(f"{head}{body.rstrip()}\n    if count:\n{inner}")}
        assert both == {*told, *other_told}, (body, other)


def names_in(body: str) -> set[str]:
    """Return the names in *body*."""
    return {node.id for node in ast.walk(ast.parse("def h():\n" + body)) if isinstance(node, ast.Name)}


def test_mistakes_are_sorted_by_line_and_a_helper_s_stand_where_it_is_called():
    found = mistakes("def h(count):\n    emit(broken(count))\n    emit(count.y)\n    emit(broken(1), count.x)\n")
    assert [one.what for one in found] == [
        "an integer has no method 'nothing'",
        "an integer has no field 'y'",
        "an integer has no field 'x'",
    ]
    (call,) = found[0].calls
    assert (call.function, call.line, call.source.strip()) == ("broken", 11, "emit(broken(count))")


def test_an_error_of_one_handler_carries_the_others_and_shows_all():
    first, second = mistakes("def h(count):\n    emit(count.y)\n    emit(count.x)\n")
    assert first.others == (second,)
    assert str(first).splitlines()[0] == "script.py:11:20: an integer has no field 'y'"
    assert str(first).splitlines()[3] == "script.py:12:20: an integer has no field 'x'"


def test_a_handler_of_many_mistakes_tells_all():
    source = "def h(count):\n" + "".join(f"    emit(count.x{number})\n" for number in range(50))
    assert len(mistakes(source)) == 50


def test_mistakes_behind_a_variable_whose_type_comes_later_are_told_too():
    source = (
        "def h(count):\n    last = None\n    for i in range(4):\n        if last:\n            emit(last.zzz)\n"
        "        last = task()\n    emit(count.x)\n"
    )
    assert {one.what for one in mistakes(source)} >= {"an integer has no field 'x'"}
