"""Counting by jump detours: exact, harmless, and gone afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from process_harness import at_work, attached, code_of, counts, plan_for, started, wait_until

from kprobes.engines.process.procfs import read_maps
from kprobes.engines.process.target import Process

pytestmark = pytest.mark.process


def test_calls_of_four_threads_are_counted_exactly(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work", "loop"})
    with started(program, "4", "300000", "wait") as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        with attached(Process(process.pid), plan) as (_, found):
            output, _ = process.communicate(b"\n", timeout=60)
            assert output == b"calls 1200000\n"
            assert counts(plan, found) == {"work": 1_200_000, "loop": 4}
            assert {armed.way for armed in found.armed} == {"jump"}


def test_detach_restores_every_byte_and_frees_the_memory(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work"})
    with at_work(program, 3) as process:
        code, mappings = code_of(process.pid, program), len(read_maps(process.pid))
        descriptors = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        with attached(Process(process.pid), plan) as (_, found):
            assert code_of(process.pid, program) != code
            wait_until(lambda: counts(plan, found)["work"])
            found.detach()
            assert found.left == ()
            assert code_of(process.pid, program) == code
            assert len(read_maps(process.pid)) == mappings
            assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) == descriptors
            after = counts(plan, found)["work"]
            time.sleep(0.05)
            assert counts(plan, found)["work"] == after
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert output.startswith(b"calls ")
    assert b"wrong" not in output


def test_a_started_program_is_counted_from_its_first_instruction(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    plan = plan_for(program)
    with attached(Process.spawn([str(program), "2", "50000"]), plan) as (engine, found):
        assert engine.wait(60)
        assert engine.exit_status == 0
        assert counts(plan, found) | {"work": 100_000, "loop": 2, "main": 1, "_start": 1} == counts(plan, found)


def test_attaching_and_detaching_a_busy_program_many_times_changes_nothing(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work"})
    with at_work(program, 2) as process:
        code, mappings = code_of(process.pid, program), len(read_maps(process.pid))
        for _ in range(20):
            with attached(Process(process.pid), plan):
                pass
            assert code_of(process.pid, program) == code
            assert len(read_maps(process.pid)) == mappings
            assert process.poll() is None
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert output.startswith(b"calls ")
    assert b"wrong" not in output


@pytest.mark.parametrize("ways", [(), ("breakpoint",)])
def test_a_thread_of_the_controller_does_what_the_hand_does(build: Callable[..., Path], ways: tuple[str, ...]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work", "loop"}, ways=ways)
    calls = 20_000 if not ways else 200
    with started(program, "3", str(calls), "wait") as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        code = code_of(process.pid, program)
        for _ in range(3):
            with attached(Process(process.pid), plan, in_thread=True):
                pass
        assert code_of(process.pid, program) == code
        with attached(Process(process.pid), plan, in_thread=True) as (_, found):
            output, _ = process.communicate(b"\n", timeout=60)
            assert output == f"calls {3 * calls}\n".encode()
            assert counts(plan, found) == {"work": 3 * calls, "loop": 3}


@pytest.mark.parametrize("ways", [(), ("breakpoint",)])
def test_a_disabled_site_rests_until_it_is_enabled(build: Callable[..., Path], ways: tuple[str, ...]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work", "main"}, ways=ways)
    site = next(number for number, site in enumerate(plan.sites) if site.name == "work")
    with at_work(program, 2) as process:
        code = code_of(process.pid, program)
        with attached(Process(process.pid), plan) as (_, found):
            for _ in range(5):
                found.disable(site)
                found.disable(site)
                rests = counts(plan, found)["work"]
                time.sleep(0.02)
                assert counts(plan, found)["work"] == rests
                found.enable(site)
                wait_until(lambda rests=rests: counts(plan, found)["work"] > rests)
            found.disable(site)
        assert code_of(process.pid, program) == code
        process.terminate()
        assert b"wrong" not in process.communicate(timeout=60)[0]
