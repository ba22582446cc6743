"""What handlers may do with each sort of map, and what they are told where they may not."""

import pytest

from front.cases import compile_text
from front.dry import Dry
from kprobes.compiler.ir.nodes import MapAdd, MapFold, QueuePop, QueuePush
from kprobes.compiler.ir.usage import nodes_of
from kprobes.errors import CompileError, UsageError
from kprobes.model.aggregates import Avg, Max, Min, Stacks, Sum
from kprobes.model.containers import Array, Queue
from kprobes.model.mapspec import HashMap

MAPS = {
    "total": Sum("total", by=str), "low": Min("low"), "high": Max("high"), "mean": Avg("mean", by=(int, str)),
    "last": Array("last", 8), "late": Queue("late", value=(int, str)), "where": Stacks("where", user=True, by=str),
    "few": HashMap("few", entries=2, lru=True),
}  # fmt: skip

REFUSED = {
    "last[8]": ("last has no index 8", "it has 0 to 7"),
    "last[-1]": ("last has no index -1", "it has 0 to 7"),
    "last['a']": ("the index must be an integer", ""),
    "late[0]": ("late is a Queue, which has no keys", "push(value) and pop()"),
    "late.push(1)": ("the value of late is a tuple of 2", "an integer, a string"),
    "late.push()": ("late.push() needs a value", "push(value)"),
    "late.pop(None)": ("a value of a map is never None", "pop(-1)"),
    "late.add(1)": ("a Queue has no method 'add'", "push"),
    "last.get(1)": ("an Array has no method 'get'", "last[index]"),
    "1 in last": ("last is an Array: its values are there always", "HashMap"),
    "mean[1]": ("mean is an Avg: a handler can add to it, not look into it", "HashMap"),
    "total.add(1)": ("total has keys, and none is given", "by="),
    "low.add(1, by=2)": ("low has no keys", 'Min("low", by=int)'),
    "low.add()": ("low.add() needs the value to count", "add(value)"),
    "where.add()": ("where is counted under keys besides, and none is given", "add(by=comm())"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_a_map_can_not_do_is_refused_with_a_hint(text):
    with pytest.raises(CompileError) as caught:
        compile_text(f"def h():\n    emit(x={text})\n" if "add" not in text else f"def h():\n    {text}\n", **MAPS)
    message, hint = REFUSED[text]
    assert message in caught.value.what
    assert hint in caught.value.hint


def test_each_sort_becomes_its_node():
    text = """def h(count):
    total.add(count, by=comm)
    low.add(count)
    mean.add(count, by=(count, comm))
    late.push((count, comm))
    where.add(by=comm)
    late.pop()
"""
    nodes = [
        type(node)
        for node in nodes_of(compile_text(text, **MAPS))
        if type(node).__module__.startswith("kprobes.compiler.ir")
    ]
    wanted = [MapAdd, MapFold, MapFold, QueuePush, MapAdd, QueuePop]
    assert [kind for kind in nodes if kind in wanted] == wanted


def test_stacks_are_taken_as_asked_and_stand_before_the_key():
    made = compile_text("def h():\n    where.add(3, by=comm)\n", **MAPS)
    run = Dry(made, numbers={"stack": 4, "user_stack": 9})
    run.hit()
    ((key, value),) = run.map("where")
    assert key[:16] == (4).to_bytes(8, "little") + (9).to_bytes(8, "little")
    assert int.from_bytes(value, "little") == 3


def test_of_a_full_lru_map_the_key_that_was_used_longest_ago_goes():
    made = compile_text("def h(count):\n    few[count] = count\n    emit(x=1 in few)\n", **MAPS)
    run = Dry(made)
    held = []
    for number in (1, 2, 3, 4):
        run.hit(0, 0, number)
        held.append({int.from_bytes(key, "little") for key, _ in run.map("few")})
    assert held == [{1}, {1, 2}, {1, 3}, {1, 4}]
    assert run.faults == 0


@pytest.mark.parametrize(
    "spec", [Array("a", 0), Array("a", 1 << 30), Queue("q", entries=0), Array("a", 4, value=()),
             Stacks("s", kernel=False)], ids=str)  # fmt: skip
def test_impossible_shapes_say_so(spec):
    with pytest.raises(UsageError) as caught:
        spec.layout(4)
    assert caught.value.hint


@pytest.mark.parametrize("call", [lambda: Sum("s").add(1), lambda: Array("a", 2)[0], lambda: Queue("q").push(1),
                                  lambda: Stacks("s").add()])  # fmt: skip
def test_methods_of_handlers_say_so_in_plain_python(call):
    with pytest.raises(UsageError, match="runs only inside a handler"):
        call()
