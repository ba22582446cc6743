"""Native code and the interpreter come to the same results."""

import ctypes
import random
import struct

import pytest
from back.machine import own_world, run_interpreter
from back.programs import EDGES, SCALE_NAMES, SCALES, TYPES, Build, random_arithmetic, random_hits, sampling
from front.cases import GOLDEN, compile_text, read_cases

from kprobes.compiler.ir.nodes import I64, U64
from kprobes.compiler.ir.verify import verify
from kprobes.errors import CompileError
from kprobes.model.mapspec import Count
from native.native_machine import NativeMachine, run_native


@pytest.mark.parametrize("seed", range(8))
def test_random_arithmetic_agrees(seed):
    source = random.Random(seed)
    made = random_arithmetic(source)
    verify(made)
    hits = random_hits(source, 40)
    ours, theirs = run_native(made, hits), run_interpreter(made, hits)
    assert ours.counters == theirs.counters
    assert ours.records == theirs.records


@pytest.mark.parametrize("kind", [I64, U64], ids=str)
@pytest.mark.parametrize(("spec", "samples"), SCALES, ids=SCALE_NAMES)
def test_samples_fall_in_the_same_buckets(spec, samples, kind):
    made = sampling(spec, kind)
    hits = [[number] for number in samples]
    ours, theirs = run_native(made, hits), run_interpreter(made, hits)
    assert ours.maps == theirs.maps
    ((_, value),) = ours.maps["h"].items()
    assert sum(struct.unpack(f"<{len(value) // 8}Q", value)) == 3 * len(samples)


# What the two worlds can't have in common: clocks, chance, stacks, the kernel's memory.
APART = ("now", "random", "stack", "cpu", "task", "current", "regs", "probe()", "cgroup", "retval")


def golden_cases():
    for path in sorted(GOLDEN.glob("*.golden")):
        for case in read_cases(path) if not path.stem.startswith("errors") else ():
            apart = any(word in case.source for word in APART)
            if case.around.split()[0] in ("kprobe", "uprobe") and not apart and "unsafe" not in case.around:
                yield case


def test_handlers_of_the_language_agree():
    text = ctypes.create_string_buffer(b"/etc/hostname of some length, longer than the buffers are that take it", 128)
    source = random.Random(1)
    hits = [[0] * 6, [1, 2, 3, 4, 5, 6], *random_hits(source, 12)]
    hits += [[ctypes.addressof(text)] * 6, [ctypes.addressof(text) + 5, 7, ctypes.addressof(text) + 120, 1, 2, 3]]
    # Numbers that are no addresses of this process: those that might be are made to be none.
    hits = [[word if word < 1 << 16 or ctypes.addressof(text) <= word < ctypes.addressof(text) + 128 else word | 1 << 47
             for word in hit] for hit in hits]  # fmt: skip
    compared = 0
    for case in golden_cases():
        made = compile_text(case.source, case.around)
        if made.exit is not None or made.entry is None:
            continue
        try:
            ours = run_native(made, hits)
        except CompileError:  # it reads the kernel's memory
            continue
        theirs = run_interpreter(made, hits, own_world([text]))
        assert (case.name, ours.counters, ours.records) == (case.name, theirs.counters, theirs.records)
        assert ours.maps == theirs.maps
        compared += 1
    assert compared >= 20


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_division_agrees_at_every_edge(kind):
    build = Build()
    left, right = build.argument(0, kind), build.argument(1, kind)
    results = [build.binary(op, left, right) for op in ("div", "mod")]
    for number in (1, 3, 1000, -1, -7, 1 << (kind.bits - 1)):
        results += [build.binary(op, left, build.const(kind, number)) for op in ("div", "mod")]
    made = build.handler(events=(build.emit(results),))
    hits = [[one, other] for one in EDGES for other in EDGES]
    ours, theirs = run_native(made, hits), run_interpreter(made, hits)
    assert ours.records == theirs.records
    assert ours.counters == theirs.counters


def test_arguments_on_the_stack_are_read():
    build = Build()
    made = build.handler(events=(build.emit([build.argument(index) for index in range(10)]),))
    ours, theirs = run_native(made, [list(range(10))]), run_interpreter(made, [list(range(10))])
    assert ours.records == theirs.records
    assert ours.counters == theirs.counters


def test_a_full_ring_is_counted_as_lost():
    build = Build()
    made = build.handler(events=(build.emit([build.argument(0)]),))
    with NativeMachine(made, ring=4096) as machine:
        for number in range(300):
            machine.run([number])
        outcome = machine.outcome()
    hits, _, lost, _ = outcome.counters
    assert (hits, lost) == (300, 300 - len(outcome.records))
    assert lost > 0
    assert [struct.unpack_from("<Q", record, 8)[0] for record in outcome.records] == list(range(len(outcome.records)))


def test_a_full_map_is_a_fault_on_both_sides():
    spec = Count("c", by=int, entries=4)
    made = compile_text("def h(file, count):\n    c.add(by=count)\n", "kprobe vfs_read", c=spec)
    hits = [[0, 0, number] for number in range(6)]
    ours, theirs = run_native(made, hits), run_interpreter(made, hits)
    assert ours.counters == theirs.counters == (6, 0, 0, 2)
    assert ours.maps == theirs.maps


PAIR = """def h():
    first = arg(1)
    result = yield
    emit(first=first, result=result)
"""


def test_each_exit_finds_its_own_entry():
    made = compile_text(PAIR, "uretprobe work")
    with NativeMachine(made) as machine:
        exit_, entry = 0, 1
        for depth in range(100):
            machine.run([depth], program=entry, stack=0x7000_0000_0000 - 64 * depth)
        for depth in reversed(range(100)):
            machine.run([], program=exit_, result=1000 + depth, stack=0x7000_0000_0000 - 64 * depth)
        machine.run([], program=exit_, result=1, stack=0x7000_0000_0000)  # its entry was before the probe
        outcome = machine.outcome()
    pairs = [struct.unpack_from("<qq", record, 8) for record in outcome.records]
    assert pairs == [(depth, 1000 + depth) for depth in reversed(range(100))]
    assert outcome.counters == (100, 0, 0, 0)


def test_a_call_that_never_returned_is_a_missed_one_when_its_frame_is_entered_again():
    made = compile_text(PAIR, "uretprobe work")
    with NativeMachine(made) as machine:
        exit_, entry = 0, 1
        machine.run([1], program=entry, stack=0x7000_0000_0000)  # left by longjmp
        machine.run([2], program=entry, stack=0x7000_0000_0000)
        machine.run([], program=exit_, result=3, stack=0x7000_0000_0000)
        outcome = machine.outcome()
    assert [struct.unpack_from("<qq", record, 8) for record in outcome.records] == [(2, 3)]
    assert outcome.counters == (1, 1, 0, 0)
