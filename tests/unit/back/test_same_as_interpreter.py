"""The kernel's BPF machine and the interpreter come to the same results."""

import ctypes
import os
import random
import struct

import pytest
from front.cases import GOLDEN, compile_text, read_cases

from back.machine import BpfMachine, own_world, raw_target, run_bpf, run_interpreter
from back.programs import EDGES, SCALE_NAMES, SCALES, TYPES, Build, P, handler, random_arithmetic, random_hits, sampling
from kprobes.compiler.back.bpf import lower
from kprobes.compiler.ir.nodes import I64, U64, Block, Const, Function, Load, MapSample, ReadContext, Return, Value
from kprobes.compiler.ir.verify import verify
from kprobes.errors import CompileError
from kprobes.model.layout import Buckets
from kprobes.model.mapspec import Count, HashMap, Histogram, String

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF programs takes root")


@pytest.mark.parametrize("seed", range(12))
def test_random_arithmetic_agrees(seed):
    source = random.Random(seed)
    made = random_arithmetic(source)
    verify(made)
    hits = random_hits(source, 40)
    ours, theirs = run_bpf(made, hits), run_interpreter(made, hits)
    assert ours.counters == theirs.counters
    assert ours.records == theirs.records


@pytest.mark.parametrize("kind", [I64, U64], ids=str)
@pytest.mark.parametrize(("spec", "samples"), SCALES, ids=SCALE_NAMES)
def test_samples_fall_in_the_same_buckets(spec, samples, kind):
    made = sampling(spec, kind)
    verify(made)
    hits = [[number] for number in samples]
    ours, theirs = run_bpf(made, hits), run_interpreter(made, hits)
    assert ours.maps == theirs.maps
    ((_, value),) = ours.maps["h"].items()
    assert sum(struct.unpack(f"<{len(value) // 8}Q", value)) == 3 * len(samples)


def test_every_power_of_two_has_its_bucket():
    sample, weight = Value(1, U64), Value(2, I64)
    nodes = (ReadContext(P, sample, "argument", 0), Const(P, weight, 1), MapSample(P, "h", (), sample, weight))
    made = handler(Function("h", "entry", (), (Block("start", nodes, Return(P)),)), (Histogram("h").layout(4),))
    hits = [[1 << power] for power in range(64)] + [[(2 << power) - 1] for power in range(64)]
    counts = struct.unpack("<66Q", run_bpf(made, hits).maps["h"][b""])
    assert counts == (0, 0, *[2] * 64)
    assert Buckets().total == 66


# Cases that look at what the two worlds can't have in common: clocks, chance, stacks, kernel memory.
APART = ("now", "random", "stack", "cpu", "task", "current", "regs", "probe()", "cgroup", "retval")


def golden_cases():
    for path in sorted(GOLDEN.glob("*.golden")):
        for case in read_cases(path) if not path.stem.startswith("errors") else ():
            apart = any(word in case.source for word in APART)
            if case.around.split()[0] in ("kprobe", "uprobe") and not apart and "unsafe" not in case.around:
                yield pytest.param(case, id=case.name)


@pytest.mark.parametrize("case", list(golden_cases()))
def test_handlers_of_the_language_agree(case):
    made = compile_text(case.source, case.around)
    if made.exit is not None or made.entry is None:
        pytest.skip("a return probe can't be run this way")
    text = ctypes.create_string_buffer(b"/etc/hostname of some length, longer than the buffers are that take it", 128)
    source = random.Random(1)
    hits = [[0] * 6, [1, 2, 3, 4, 5, 6], *random_hits(source, 12)]
    hits += [[ctypes.addressof(text)] * 6, [ctypes.addressof(text) + 5, 7, ctypes.addressof(text) + 120, 1, 2, 3]]
    # Reads of kernel memory fail on both sides: user addresses are refused, others are not canonical.
    hits = [[word & ~(1 << 63) if word >> 47 & 0xFFFF != 0xFFFF else word for word in hit] for hit in hits]
    ours, theirs = run_bpf(made, hits), run_interpreter(made, hits, own_world([text]))
    assert ours.counters == theirs.counters
    assert ours.records == theirs.records
    assert ours.maps == theirs.maps


def test_a_full_map_is_a_fault_on_both_sides():
    spec = Count("c", by=int, entries=4)
    made = compile_text("def h(file, count):\n    c.add(by=count)\n", "kprobe vfs_read", c=spec)
    hits = [[0, 0, number] for number in range(6)]
    ours, theirs = run_bpf(made, hits), run_interpreter(made, hits)
    assert ours.counters == theirs.counters == (6, 0, 0, 2)
    assert ours.maps == theirs.maps


def test_a_full_ring_is_counted_as_lost():
    build = Build()
    layout = build.emit([build.argument(0)])
    made = build.handler(events=(layout,))
    with BpfMachine(made, raw_target(ring_bytes=4096)) as machine:
        for number in range(300):
            machine.run([number])
        outcome = machine.outcome()
    hits, missed, lost, faults = outcome.counters
    assert (hits, missed, faults) == (300, 0, 0)
    assert lost == 300 - len(outcome.records) > 0
    assert [struct.unpack_from("<Q", record, 8)[0] for record in outcome.records] == list(range(len(outcome.records)))


@pytest.mark.parametrize("site", [0, 2])
def test_records_and_counters_carry_the_site(site):
    build = Build()
    made = build.handler(events=(build.emit([build.argument(0)]),))
    for target in (raw_target(sites=3, site=site),):
        with BpfMachine(made, target) as machine:
            machine.run([5])
            ((_, value),) = machine.maps[".stats"].read()
            words = struct.unpack(f"<{len(value) // 8}Q", value)
            shards = [words[at : at + 12] for at in range(0, len(words), 12)]
            assert [sum(shard[4 * number] for shard in shards) for number in range(3)] == [
                int(number == site) for number in range(3)
            ]
            assert struct.unpack_from("<II", machine.outcome().records[0]) == (7, site)


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_division_agrees_at_every_edge(kind):
    build = Build()
    left, right = build.argument(0, kind), build.argument(1, kind)
    results = [build.binary(op, left, right) for op in ("div", "mod")]
    for number in (1, 3, 1000, -1, -7, 1 << (kind.bits - 1)):
        results += [build.binary(op, left, build.const(kind, number)) for op in ("div", "mod")]
    made = build.handler(events=(build.emit(results),))
    verify(made)
    hits = [[one, other] for one in EDGES for other in EDGES]
    ours, theirs = run_bpf(made, hits), run_interpreter(made, hits)
    assert ours.records == theirs.records
    assert ours.counters == theirs.counters
    assert ours.counters[3] == sum(other & ((1 << kind.bits) - 1) == 0 for _, other in hits)


# What LLVM knows a formula or an instruction for that BPF has not.
IDIOMS = {
    "a sum": "s = 0\nfor i in range(min(count, 100)):\n    s += i",
    "a sum of squares": "s = 0\nfor i in range(min(count, 100)):\n    s += i * i",
    "a sum by while": "s = 0\ni = 0\nwhile i < count:\n    s += i\n    i += 1",
    "a count of bits": "s = 0\nx = count\nwhile x:\n    x &= x - 1\n    s += 1",
    "a logarithm": "s = 0\nx = count\nwhile x:\n    x >>= 1\n    s += 1",
    "a power": "s = 1\nfor i in range(50):\n    s = s * count",
    "nested loops": "s = 0\nfor i in range(8):\n    for j in range(16):\n        s += i * j ^ count",
    "a test for overflow": "s = 0\nx = count * 10\nif x // 10 == count:\n    s = 1",
    "another one": "s = 0\nx = count * (count >> 3 | 1)\nif x // (count >> 3 | 1) == count:\n    s = 1",
    "a rotation": "s = (count << 13) | (count >> 51)",
    "bytes turned round": "s = (count & 255) << 24 | (count >> 8 & 255) << 16 | (count >> 16 & 255) << 8 | count >> 24",
    "saturation": "s = min(count + 5, 100)\nif count > (1 << 62):\n    s = max(s, 7)",
    "least and most": "s = max(min(count, 5000), 3) - min(max(count, 17), 40)",
}


@pytest.mark.parametrize("idiom", IDIOMS)
def test_idioms_that_llvm_knows_agree(idiom):
    body = "".join(f"    {line}\n" for line in IDIOMS[idiom].splitlines())
    made = compile_text(f"def h(file, count):\n{body}    emit(s)\n", "kprobe vfs_read")
    hits = [[0, 0, number] for number in EDGES]
    ours, theirs = run_bpf(made, hits), run_interpreter(made, hits)
    assert ours.records == theirs.records
    assert ours.counters == theirs.counters


def test_large_buffers_find_their_place():
    spec = HashMap("m", key=String(200), value=(String(256), String(300)))
    text = (
        "def h():\n    one = string(arg(1), 256)\n    two = string(arg(2), 300)\n"
        "    if one != two and arg(3):\n        m[string(arg(1), 200)] = one, two\n        emit(one, two)\n"
    )
    made = compile_text(text, "uprobe", m=spec)
    texts = [ctypes.create_string_buffer(bytes([65 + n]) * 280, 512) for n in range(2)]
    first, second = (ctypes.addressof(one) for one in texts)
    hits = [[first, second, 1], [second, first, 1], [first, first, 1], [first, second, 0], [8, second, 1]]
    ours, theirs = run_bpf(made, hits), run_interpreter(made, hits, own_world(texts))
    assert ours.counters == theirs.counters
    assert ours.records == theirs.records
    assert ours.maps == theirs.maps
    assert len(ours.records) == 4  # also for the same address twice: it is cut at another length
    with BpfMachine(made, raw_target()) as machine:
        assert any(layout.kind == "scratch" for layout in machine.lowered.maps)


def test_a_handler_that_needs_too_much_stack_is_refused_on_its_line():
    build = Build()
    address = build.argument(0)
    loaded = []
    for number in range(80):
        loaded.append(build.value(U64))
        build.nodes.append(Load(P, loaded[-1], address, 8 * number))
    mixed = loaded[0]
    for value in reversed(loaded):
        mixed = build.binary("xor", build.binary("mul", mixed, value), value)
    with pytest.raises(CompileError, match=r"test.py:1:1: h needs \d+ bytes of stack, and a BPF program has 512"):
        lower(build.handler(events=(build.emit([mixed]),)), raw_target())


def test_the_time_stamp_counter_is_refused_with_a_hint():
    with pytest.raises(CompileError, match=r"cycles\(\) can't be had through a") as caught:
        lower(compile_text("def h():\n    emit(c=cycles())\n"), raw_target())
    assert "now()" in caught.value.hint
