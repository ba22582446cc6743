"""Native handlers in a process: registers, maps, events, guards."""

from __future__ import annotations

import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from process_harness import attached, counts, plan_for, redirected

from kprobes.engines.process.target import Process
from kprobes.model.layout import EventLayout, Field, MapLayout
from kprobes.model.plan import Attachment, NativeProgram, NativeRelocation, Plan

pytestmark = pytest.mark.process
PROGRAMS = Path(__file__).parent / "programs"
RECORD = struct.Struct("<IIQQQQ")
LAYOUT = EventLayout(
    0, "call", 40, tuple(Field(name, "uint", 8 + 8 * at, 8) for at, name in enumerate(("di", "si", "tsc", "tid")))
)


def assemble(source: Path, directory: Path) -> bytes:
    subprocess.run(["as", source, "-o", directory / "code.o"], check=True)
    subprocess.run(["objcopy", "-O", "binary", directory / "code.o", directory / "code.bin"], check=True)
    return (directory / "code.bin").read_bytes()


def hole(code: bytes, digit: int) -> int:
    return code.index(bytes([0x11 * digit]) * 8)


def with_handler(plan: Plan, directory: Path, *, ring: int = 1 << 20) -> Plan:
    code = assemble(PROGRAMS / "emit.s", directory)
    program = NativeProgram(
        "emit",
        code,
        relocations=(
            NativeRelocation(hole(code, 1), "map", "total"),
            NativeRelocation(hole(code, 2), "helper", "reserve"),
            NativeRelocation(hole(code, 3), "helper", "submit"),
        ),
        reads=("di", "si"),
    )
    return replace(
        plan,
        natives=(program,),
        maps=(MapLayout("total", "count", 4, 8, 1), MapLayout("events", "ring", 0, 0, ring)),
        attachments=(Attachment(0, tuple(range(len(plan.sites)))),),
        events=(LAYOUT,),
    )


def test_events_of_all_threads_arrive_complete(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("threads.c")
    plan = with_handler(plan_for(program, {"work"}), tmp_path, ring=1 << 22)
    with subprocess.Popen([program, "3", "50000", "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        with attached(Process(process.pid), plan) as (engine, found):
            process.stdin.write(b"\n")
            process.stdin.flush()
            records = []
            end = time.monotonic() + 60
            while time.monotonic() < end:
                batch = found.poll(0.05)
                records += [RECORD.unpack(record) for record in batch]
                if not batch and not engine.is_alive:
                    break
            hits, missed, lost, faults = found.counters()[0]
            assert (missed, faults) == (0, 0)
            assert hits == 150_000
            assert len(records) + lost == hits
            by_thread = Counter(record[5] for record in records)
            assert len(by_thread) == 3
            if not lost:
                for tid in by_thread:
                    assert [record[2] for record in records if record[5] == tid] == list(range(50_000))
            assert found.read_map("total") == [(b"", struct.pack("<Q", 3 * sum(range(50_000))))]
            assert found.damaged == 0


@pytest.mark.parametrize(
    ("name", "flags", "arguments"),
    [
        ("signals.c", (), ("20000",)),
        ("flow.c", (), ("2000",)),
        ("exceptions.cc", ("-std=c++20",), ()),
        ("vectors.c", (), ()),
    ],
)
def test_program_with_a_handler_on_each_function_runs_as_without(
    build: Callable[..., Path], tmp_path: Path, name: str, flags: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    program = build(name, *flags)
    plain = subprocess.run([program, *arguments], capture_output=True, timeout=60)
    plan = with_handler(plan_for(program), tmp_path)
    out, err = tmp_path / "out", tmp_path / "err"
    with redirected(out, err), attached(Process.spawn([str(program), *arguments]), plan) as (engine, found):
        while not engine.wait(0):
            found.poll(0.02)
        assert (out.read_bytes(), engine.exit_status) == (plain.stdout, plain.returncode)
        assert found.damaged == 0
        hits = counts(plan, found)
        assert hits["main"] == 1


def test_hits_and_missed_add_up_to_calls_under_signals(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("signals.c")
    plan = with_handler(plan_for(program, {"counted"}), tmp_path)
    out, err = tmp_path / "out", tmp_path / "err"
    with redirected(out, err), attached(Process.spawn([str(program), "30000"]), plan) as (engine, found):
        while not engine.wait(0):
            found.poll(0.01)
        said = int(err.read_text().split()[2])
        hits, missed, _lost, _faults = found.counters()[0]
        assert hits + missed == said
        assert hits > said * 0.9
        assert counts(plan, found)["counted"] == hits
