"""Handlers beyond the 512 bytes of a BPF stack: what lives long moves to working memory, the results stay the same."""

import ctypes
import os
import random
from pathlib import Path

import pytest
from front.cases import compile_text

from back.machine import BpfMachine, own_world, raw_target, run_interpreter
from back.programs import random_arithmetic, random_hits
from back.test_same_as_interpreter import golden_cases
from kprobes.compiler.back import llvm
from kprobes.compiler.back.bpf import BpfTarget, lower, program
from kprobes.compiler.back.bpf.part import LARGEST_SCRATCH
from kprobes.compiler.back.bpf.spills import is_crowded
from kprobes.compiler.ir.verify import verify
from kprobes.engines.kernel import syscall
from kprobes.errors import CompileError
from kprobes.model.mapspec import HashMap, String

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF programs takes root")

MAPS = {"wide": HashMap("wide", key=(String(64),) * 7, value=int)}


def source(*lines):
    return "def h(file, buf, count, pos):\n" + "".join(f"    {line}\n" for line in lines)


def emitted(names):
    return "emit(" + ", ".join(f"f_{name}={name}" for name in names) + ")"


def values(count):
    return [f"v{number}" for number in range(count)]


def reads(count):
    return [f"v{number} = deref(count + {8 * number}, 'u64')" for number in range(count)]


def strings(count, size):
    return [f"s{number} = string(count + {number}, {size})" for number in range(count)]


BIG = {
    "40 integers": source(*reads(40), emitted(values(40))),
    "120 integers": source(*reads(120), emitted(values(120))),
    "100 variables through a loop": source(
        *[f"v{number} = count" for number in range(100)],
        "for turn in range(4):",
        *[f"    v{number} = v{number} * 3 + deref(count + {number}, 'u32')" for number in range(100)],
        emitted(values(100)),
    ),
    "100 variables and no call": source(
        *[f"v{number} = count * {number}" for number in range(100)],
        "for turn in range(4):",
        *[f"    v{number} = v{number} * 3 + v{number * 7 % 100}" for number in range(100)],
        emitted(values(100)),
    ),
    "30 strings": source(*strings(30, 64), "if s0 == s29:", "    emit(1)", emitted([f"s{n}" for n in range(30)])),
    "strings that change": source(
        *strings(20, 32),
        "for turn in range(3):",
        *[f"    s{number} = string(count + turn + {number}, 32)" for number in range(20)],
        emitted([f"s{number}" for number in range(20)]),
    ),
    "integers and strings": source(*reads(60), *strings(6, 64), emitted([*values(60), *[f"s{n}" for n in range(6)]])),
    "keys of 448 bytes": source(
        f"wide[{', '.join(f'string(count + {number}, 64)' for number in range(7))}] = count",
        f"wide[{', '.join(f'string(count + {number}, 64)' for number in range(1, 8))}] += 5",
    ),
    "the longest string": source("s = string(count, 4096)", "t = s", "if s == t:", "    emit(a=s)"),
    "conditions of many": source(*reads(90), f"if {' and '.join(f'v{n} != {n}' for n in range(90))}:", "    emit(1)"),
}


@pytest.mark.parametrize("name", BIG)
def test_a_big_handler_loads_and_agrees_with_the_interpreter(name):
    made = compile_text(BIG[name], **MAPS)
    verify(made)
    text = ctypes.create_string_buffer(random.Random(1).randbytes(8192), 8192)
    words = ctypes.create_string_buffer(b"many words " * 700, 8192)
    hits = [[0, 0, ctypes.addressof(one) + offset] for one in (text, words) for offset in (0, 64)] + [[0] * 4]
    with BpfMachine(made, raw_target(ring_bytes=1 << 20)) as machine:
        for arguments in hits:
            machine.run(arguments)
        ours = machine.outcome()
    theirs = run_interpreter(made, hits, own_world([text, words]))
    assert ours.counters == theirs.counters
    assert ours.records == theirs.records
    assert ours.maps == theirs.maps
    assert ours.counters[0] == len(hits)


def frugally(handler):
    """Run *handler* as if its stack had been too small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "is_crowded", lambda _: True)
        return BpfMachine(handler, raw_target())


@pytest.mark.parametrize("seed", range(8))
def test_random_arithmetic_in_working_memory_agrees(seed):
    chance = random.Random(seed)
    made = random_arithmetic(chance)
    hits = random_hits(chance, 40)
    theirs = run_interpreter(made, hits)
    with frugally(made) as machine:
        for arguments in hits:
            machine.run(arguments)
        ours = machine.outcome()
    assert ours.counters == theirs.counters
    assert ours.records == theirs.records


@pytest.mark.parametrize("case", list(golden_cases())[::2])
def test_handlers_of_the_language_agree_in_working_memory(case):
    made = compile_text(case.source, case.around)
    if made.exit is not None or made.entry is None:
        pytest.skip("a return probe can't be run this way")
    hits = [[0] * 6, [1, 2, 3, 4, 5, 6], *random_hits(random.Random(1), 6)]
    hits = [[word & ~(1 << 63) if word >> 47 & 0xFFFF != 0xFFFF else word for word in hit] for hit in hits]
    theirs = run_interpreter(made, hits)
    with frugally(made) as machine:
        for arguments in hits:
            machine.run(arguments)
        ours = machine.outcome()
    assert ours.counters == theirs.counters
    assert ours.records == theirs.records
    assert ours.maps == theirs.maps


def test_what_not_even_working_memory_holds_is_refused_in_words():
    with pytest.raises(CompileError, match=f"bytes of working memory, and a CPU has {LARGEST_SCRATCH}") as caught:
        lower(
            compile_text(
                source(
                    *strings(12, 4096),
                    "if s0 == s11 or s1 == s10:",
                    "    emit(1)",
                    *[f"if s{n} == s{n + 1}:\n        emit({n})" for n in range(11)],
                )
            ),
            raw_target(),
        )
    assert caught.value.line == 10
    assert "shorter strings" in caught.value.hint


def test_a_program_that_llvm_could_not_write_is_refused_in_words(monkeypatch):
    """LLVM ends the process where a jump is too long: this one jumps back over all of its loop."""
    monkeypatch.setattr(llvm, "_LONGEST_JUMP", 2000)
    monkeypatch.setattr(llvm, "_FEW_LINES", 1000)
    few, many = (
        source("t = 0", "for turn in range(3):", *[f"    t ^= deref(count + {n}, 'u32')" for n in range(count)])
        for count in (60, 200)
    )
    lower(compile_text(few), raw_target())
    with pytest.raises(CompileError, match=r"needs [0-9]{4} instructions, and BPF can't jump over so many"):
        lower(compile_text(many), raw_target())


def test_a_crowd_of_values_is_seen_before_llvm_gives_up_on_its_stack():
    made = compile_text(source(*reads(1001), "t = 0", *[f"t ^= v{number}" for number in range(1001)], "emit(t)"))
    assert is_crowded(made.entry)


def test_a_small_handler_needs_no_working_memory():
    made = compile_text(source("emit(count, comm())"))
    assert not is_crowded(made.entry)
    assert all(layout.kind != "scratch" for layout in lower(made, raw_target()).maps)


def cpus():
    first, _, last = Path("/sys/devices/system/cpu/possible").read_text().strip().partition("-")
    return int(last or first) + 1


def per_cpu(one):
    """Return the values of a per-CPU map, that of each CPU."""
    size = -(-one.layout.value_size // 8) * 8
    content = syscall.map_lookup(one.fd, bytes(4), size * cpus())
    return [content[at : at + size] for at in range(0, len(content), size)]


def set_per_cpu(one, values):
    syscall.map_update(one.fd, bytes(4), b"".join(values))


@pytest.mark.parametrize("compare_exchange", [True, False])
def test_a_hit_that_finds_the_working_memory_in_use_is_missed_and_harms_nothing(compare_exchange):
    made = compile_text(BIG["120 integers"])
    hit = [0, 0, 0, 0]
    with BpfMachine(made, raw_target(ring_bytes=1 << 20, compare_exchange=compare_exchange)) as machine:
        machine.run(hit)
        (scratch,) = [one for one in machine.maps.values() if one.layout.kind == "scratch"]
        before = per_cpu(scratch)
        assert {value[:8] for value in before} == {bytes(8)}, "each end of the program gives it back"
        taken = [b"\1" + value[1:] for value in before]
        set_per_cpu(scratch, taken)
        machine.run(hit)
        assert per_cpu(scratch) == taken
        set_per_cpu(scratch, before)
        machine.run(hit)
        outcome = machine.outcome()
    assert (outcome.counters[0], outcome.counters[1]) == (2, 1)
    assert len(outcome.records) == 2


@pytest.mark.parametrize(
    ("way", "compare_exchange", "guarded"),
    [
        ("kprobe", True, False), ("kprobe.multi", True, False), ("fentry", True, False), ("fentry", False, True),
        ("uprobe", True, True), ("uprobe", False, True), ("raw_tracepoint", True, True),
    ],
)  # fmt: skip
def test_working_memory_is_guarded_where_the_kernel_doesn_t(way, compare_exchange, guarded):
    target = BpfTarget(entry_way=way, argument_count=4, compare_exchange=compare_exchange)
    module, _, _ = program.lower_to_text(compile_text(BIG["40 integers"]), target, frugal=True)
    assert ("taken." in module) is guarded
    assert ("volatile xchg ptr %scratch" in module) is (guarded and compare_exchange)
