"""Programs that break tracers: probed on each function they print what they print without, and counts are exact."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from process_harness import attached, code_of, counts, is_ending, plan_for, redirected, started

from kprobes.engines.process.target import Process
from kprobes.errors import KprobesError, TargetError

pytestmark = pytest.mark.process

# Program, compiler flags, arguments.
CASES = [
    ("flow.c", (), ()),
    ("flow.c", ("-O0",), ("300",)),
    ("flow.c", ("-O3", "-static"), ()),
    ("flow.c", ("-fcf-protection=full",), ()),
    ("signals.c", (), ()),
    ("signals.c", ("-O3", "-mavx2"), ()),
    ("vectors.c", (), ()),
    ("exceptions.cc", ("-std=c++20",), ()),
    ("exceptions.cc", ("-std=c++20", "-O0"), ()),
    ("churn.c", (), ("15",)),
    ("churn.c", ("-static",), ("15",)),
    ("tiny.c", (), ()),
    ("jit.c", (), ()),
    ("bare.c", ("-nostdlib", "-static", "-fno-stack-protector"), ()),
]


def run_plain(program: Path, arguments: tuple[str, ...]) -> tuple[bytes, bytes, int]:
    done = subprocess.run([program, *arguments], input=b"\n", capture_output=True, timeout=120)
    return done.stdout, done.stderr, done.returncode


def said_counts(output: bytes) -> dict[str, int]:
    words = [line.split() for line in output.decode().splitlines()]
    return {word[1]: int(word[2]) for word in words if word[:1] == ["count"]}


@pytest.mark.parametrize(("name", "flags", "arguments"), CASES)
def test_with_a_probe_on_each_function_it_runs_as_without_and_counts_are_exact(
    build: Callable[..., Path], tmp_path: Path, name: str, flags: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    program = build(name, *flags)
    expected, _, code = run_plain(program, arguments)
    plan = plan_for(program)
    out, err = tmp_path / "out", tmp_path / "err"
    target = Process.spawn([str(program), *arguments])
    with redirected(out, err), attached(target, plan) as (engine, found):
        assert engine.wait(120)
        assert engine.exit_status == code
        assert out.read_bytes() == expected
        said = said_counts(expected if b"count" in expected else err.read_bytes())
        assert said
        got = counts(plan, found)
        assert {key: got[key] for key in said} == said


@pytest.mark.parametrize(("name", "flags"), [("flow.c", ()), ("signals.c", ()), ("exceptions.cc", ("-std=c++20",))])
def test_attaching_and_detaching_while_it_runs_changes_nothing(
    build: Callable[..., Path], name: str, flags: tuple[str, ...]
) -> None:
    program = build(name, *flags)
    arguments = {"flow.c": ("1000000",), "signals.c": ("1000000",), "exceptions.cc": ("150000",)}[name]
    expected, _, code = run_plain(program, arguments)
    plan = plan_for(program)
    cycles = 0
    with subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        time.sleep(0.01)
        before = code_of(process.pid, program)
        while process.poll() is None and cycles < 25:
            try:
                with attached(Process(process.pid), plan):
                    time.sleep(0.003)
            except KprobesError:
                if not is_ending(process.pid):
                    raise
            else:
                cycles += 1
        if process.poll() is None:
            assert code_of(process.pid, program) == before
        output, _ = process.communicate(timeout=120)
        assert (output, process.returncode) == (expected, code)
    assert cycles


def test_threads_without_a_libc_on_tiny_stacks_are_counted_exactly(build: Callable[..., Path]) -> None:
    program = build("bare.c", "-nostdlib", "-static", "-fno-stack-protector")
    plan = plan_for(program)
    with started(program) as process:
        time.sleep(0.02)
        with attached(Process(process.pid), plan) as (_, found):
            output, _ = process.communicate(b"\n", timeout=60)
            assert output.startswith(b"done\n")
            said = said_counts(output)
            assert {name: counts(plan, found)[name] for name in said} == said
            assert found.mode == "rdfsbase"


def test_process_whose_first_thread_has_ended_is_probed(build: Callable[..., Path]) -> None:
    program = build("leader.c")
    plan = plan_for(program, {"work"})
    with started(program) as process:
        assert process.stdout
        assert process.stdout.readline() == b"alone\n"
        with attached(Process(process.pid), plan) as (_, found):
            output, _ = process.communicate(b"\n", timeout=60)
            assert output == b"count work 100000\n"
            assert counts(plan, found)["work"] == 100_000


@pytest.mark.parametrize(
    ("name", "flags", "arguments"),
    [
        ("flow.c", (), ("100",)),
        ("signals.c", (), ("300",)),
        ("exceptions.cc", ("-std=c++20",), ("100",)),
        ("churn.c", (), ("3",)),
        ("bare.c", ("-nostdlib", "-static", "-fno-stack-protector", "-DROUNDS_=500"), ()),
    ],
)
def test_with_breakpoints_only_a_program_runs_as_without(
    build: Callable[..., Path],
    tmp_path: Path,
    name: str,
    flags: tuple[str, ...],
    arguments: tuple[str, ...],
) -> None:
    program = build(name, *flags)
    expected, _, code = run_plain(program, arguments)
    plan = plan_for(program, ways=("breakpoint",))
    out, err = tmp_path / "out", tmp_path / "err"
    with redirected(out, err), attached(Process.spawn([str(program), *arguments]), plan) as (engine, found):
        assert {armed.way for armed in found.armed} == {"breakpoint"}
        assert engine.wait(120)
        assert (out.read_bytes(), engine.exit_status) == (expected, code)
        said = said_counts(expected if b"count" in expected else err.read_bytes())
        got = counts(plan, found)
        assert said
        if name != "churn.c":  # its forked children run without breakpoints
            assert {key: got[key] for key in said} == said


def test_breakpoints_come_and_go_on_a_busy_program(build: Callable[..., Path]) -> None:
    program = build("signals.c")
    arguments = ("3000000",)  # a second or more of work
    expected, _, code = run_plain(program, arguments)
    plan = plan_for(program, {"leaf", "on_signal"}, ways=("breakpoint",))
    with subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        cycles = 0
        while process.poll() is None and cycles < 10:
            try:
                with attached(Process(process.pid), plan):
                    cycles += 1
                    time.sleep(0.02)
            except TargetError:
                if not is_ending(process.pid):
                    raise
        output, _ = process.communicate(timeout=120)
        assert (output, process.returncode) == (expected, code)
    assert cycles
