"""A handler in CPython comes to the results of the interpreter, which those of the engines are held against."""

import random

import pytest
from front import helpers
from front.cases import GOLDEN, compile_text, read_cases
from front.dry import Dry
from front.test_arithmetic import NAMES as INTS
from front.test_arithmetic import arguments, expressions, outcome
from front.universe import NAMES, Universe
from hypothesis import given, settings

from kprobes.arch.x86_64.registers import PT_REGS
from kprobes.compiler.front.abi import integer_indexes
from kprobes.errors import CompileError, UsageError
from kprobes.events.aggregate import read_map
from kprobes.events.decode import Decoder
from kprobes.model.probe import HandlerSource, Probe
from kprobes.testing import Frame, run

EVERYTHING = {**NAMES, **{key: value for key, value in vars(helpers).items() if callable(value)}}
# The golden files whose handlers run in plain Python too, each of them.
SIMULATED = ("basics", "control", "pointers", "state", "values")
# Handlers that use what plain Python doesn't have yet: structs declared by a class.
REFUSED = {"loops over arrays in user memory"}
BASE = 0xFFFF_8880_0000_1000


def probe(text, around="kprobe vfs_read"):
    return Probe(around.split()[0], ("x",), HandlerSource("h", text, "script.py", 10, 4, EVERYTHING))


@settings(max_examples=300)
@given(expressions.filter(lambda text: " if " not in text), arguments)
def test_random_expressions_are_worth_the_same(text, raw):
    try:
        _, wanted = outcome(text, raw)
    except CompileError:
        return
    handler = f"def h({', '.join(INTS)}):\n    emit(x={text})\n"
    frame = Frame(raw, types=Universe(), prototype=Universe().function("ints"))
    (event,) = run(probe(handler, "kprobe ints"), frame).events
    assert event.x & (1 << 64) - 1 == wanted & (1 << 64) - 1


def golden() -> list:
    return list(_golden())


def _golden():
    for name in SIMULATED:
        for case in read_cases(GOLDEN / f"{name}.golden"):
            if case.around.split()[0] != "tracepoint":
                yield case


@pytest.mark.parametrize("case", golden(), ids=lambda case: case.name)
def test_golden_handlers_agree(case):
    source = random.Random(case.name)
    _, *place = case.around.split()
    prototype = Universe().function(place[0]) if place else None
    numbers = {"now": 5_000, "pid": 7, "tid": 8, "uid": 9, "cpu": 1, "cgroup": 77, "random": 5, "stack": 3,
               "user_stack": 4, "task": BASE + 256}  # fmt: skip
    compiled = compile_text(case.source, case.around)
    memory = {BASE: bytes(source.randrange(128) if source.random() < 0.5 else 0 for _ in range(1024))}
    registers = {name: 11 + 8 * place for place, name in enumerate(PT_REGS)}
    for number in range(4):
        raw = [source.choice([0, 1, 7, BASE, BASE + 64, (1 << 64) - 2, 4096]) for _ in range(8)]
        result = source.choice([0, 5, (1 << 64) - 2])
        dry = Dry(compiled, memory={("kernel", BASE): memory[BASE], ("user", BASE): memory[BASE]}, numbers=numbers)
        common = {"registers": registers, "function": 64, "call": 1}
        dry.hit(*raw, **common)
        if dry.handler.exit is not None:
            dry.leave(result, **common)
        indexes = integer_indexes(prototype, Universe()) if prototype else range(8)
        given = [0 if index is None else raw[index] for index in indexes]
        frame = Frame(given, result, registers=registers, memory=memory, types=Universe(), prototype=prototype,
                      function=64, **numbers)  # fmt: skip
        if case.name in REFUSED:  # by name, and nothing comes out wrong
            with pytest.raises(UsageError):
                run(probe(case.source, case.around), frame)
            return
        done = run(probe(case.source, case.around), frame)
        events = Decoder(compiled.events, ["x"]).decode(dry.world.records)
        assert [event.fields for event in done.events if not event.line] == [
            event.fields for event in events if not event.layout.template
        ], number
        assert done.lines == [event.text for event in events if event.layout.template]
        for layout in compiled.maps:
            assert read_map(done.maps[layout.name].pairs(), done.maps[layout.name].layout) == read_map(
                dry.map(layout.name), layout
            )
        assert done.faults == dry.faults
