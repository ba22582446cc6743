"""The controller's death, two controllers at once, the target's end: the target always lives on, or says its last."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from process_harness import at_work, attached, code_of, counts, is_dead, plan_for, started, wait_until

from kprobes.engines.process.engine import detach_process
from kprobes.engines.process.procfs import read_maps
from kprobes.engines.process.registry import registries
from kprobes.engines.process.target import Process, identify
from kprobes.engines.process.threads import StoppedThreads
from kprobes.engines.process.worker import Worker, myself
from kprobes.errors import TargetError

pytestmark = pytest.mark.process
CONTROLLER = Path(__file__).parent / "controller.py"


def start_controller(pid: int, program: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, CONTROLLER, str(pid), program, "work", *more], stdout=subprocess.PIPE)


def hands_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def kill(*pids: int) -> None:
    """Kill them all, and wait for the end of each."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(map(is_dead, pids)))


def test_after_the_controller_is_killed_the_probes_go_by_themselves(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    with at_work(program, 2) as target:
        code = code_of(target.pid, program)
        with start_controller(target.pid, program, "once") as controller:
            assert controller.stdout
            assert controller.stdout.readline() == b"starting\n"
            assert controller.stdout.readline() == b"attached\n"
            assert code_of(target.pid, program) != code
            controller.kill()
        wait_until(lambda: code_of(target.pid, program) == code)
        wait_until(lambda: not registries(read_maps(target.pid)))
        target.terminate()
        assert b"wrong" not in target.communicate(timeout=60)[0]


def test_controller_killed_at_random_instants_leaves_a_sound_target(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    chance = random.Random(1)
    with at_work(program, 3) as target:
        code, mappings = code_of(target.pid, program), len(read_maps(target.pid))
        for _ in range(12):
            with start_controller(target.pid, program) as controller:
                assert controller.stdout
                assert controller.stdout.readline() == b"starting\n"
                time.sleep(chance.uniform(0, 0.15))
                controller.kill()
            assert target.poll() is None
            wait_until(lambda: code_of(target.pid, program) == code)
            wait_until(lambda: len(read_maps(target.pid)) == mappings)
        target.terminate()
        output = target.communicate(timeout=60)[0]
        assert output.startswith(b"calls ")
        assert b"wrong" not in output


def test_what_a_killed_hand_leaves_runs_on_and_can_be_cleaned(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    with at_work(program, 2) as target:
        code, mappings = code_of(target.pid, program), len(read_maps(target.pid))
        with start_controller(target.pid, program, "once") as controller:
            assert controller.stdout
            controller.stdout.readline()
            assert controller.stdout.readline() == b"attached\n"
            hands = hands_of(controller.pid)
            assert hands
            kill(controller.pid, *hands)
        assert target.poll() is None
        assert code_of(target.pid, program) != code
        assert detach_process(target.pid) == 1
        assert code_of(target.pid, program) == code
        assert len(read_maps(target.pid)) == mappings
        assert detach_process(target.pid) == 0
        target.terminate()
        assert b"wrong" not in target.communicate(timeout=60)[0]


def test_leftovers_of_the_dead_are_cleaned_by_the_next_attach(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work"})
    with at_work(program, 2) as target:
        code = code_of(target.pid, program)
        with start_controller(target.pid, program, "once") as controller:
            assert controller.stdout
            controller.stdout.readline()
            controller.stdout.readline()
            kill(controller.pid, *hands_of(controller.pid))
        with attached(Process(target.pid), plan) as (_, found):
            wait_until(lambda: counts(plan, found)["work"] > 0)
            assert len(registries(read_maps(target.pid))) == 1
        assert code_of(target.pid, program) == code
        target.terminate()
        assert b"wrong" not in target.communicate(timeout=60)[0]


def test_a_new_session_begins_at_once_after_the_controller_was_killed(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work"})
    with at_work(program, 2) as target:
        code, mappings = code_of(target.pid, program), len(read_maps(target.pid))
        for _ in range(5):
            with start_controller(target.pid, program, "once") as controller:
                assert controller.stdout
                controller.stdout.readline()
                controller.stdout.readline()
                controller.kill()
                with attached(Process(target.pid), plan) as (_, found):
                    wait_until(lambda found=found: counts(plan, found)["work"] > 0)
                    time.sleep(0.1)
                    before = counts(plan, found)["work"]
                    wait_until(lambda found=found, before=before: counts(plan, found)["work"] > before)
            assert code_of(target.pid, program) == code
            wait_until(lambda: len(read_maps(target.pid)) == mappings)
        target.terminate()
        assert b"wrong" not in target.communicate(timeout=60)[0]


def test_of_two_controllers_at_the_same_moment_one_is_refused(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    with at_work(program, 2) as target:
        code = code_of(target.pid, program)
        pair = [start_controller(target.pid, program, "once") for _ in range(2)]
        wait_until(lambda: any(one.poll() is not None for one in pair))
        assert sorted(one.poll() is None for one in pair) == [False, True]
        wait_until(lambda: code_of(target.pid, program) != code)  # it was the first, and may not be done yet
        for one in pair:
            one.kill()
            one.communicate()
        wait_until(lambda: code_of(target.pid, program) == code)
        target.terminate()
        assert b"wrong" not in target.communicate(timeout=60)[0]


def test_a_process_is_taken_before_its_first_probe_is_in_place(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work"})
    with started(program, "1", "1000", "wait") as target:
        assert target.stdout
        target.stdout.readline()
        mappings = len(read_maps(target.pid))
        first = Worker(identify(target.pid), plan, myself())
        area = first._find_place().area  # half of an attach: the memory is there, the jumps are not
        with pytest.raises(TargetError, match="is probed already"), attached(Process(target.pid), plan):
            pass
        assert first.ground.unmap(area)
        first.close()
        assert len(read_maps(target.pid)) == mappings
        assert target.communicate(b"\n", timeout=60)[0] == b"calls 1000\n"


def test_a_second_controller_is_refused_with_the_first_ones_number(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work"})
    with at_work(program, 1) as target:
        with start_controller(target.pid, program, "once") as controller:
            assert controller.stdout
            controller.stdout.readline()
            controller.stdout.readline()
            with pytest.raises(TargetError, match=f"probed already, by process {controller.pid}"):
                attached(Process(target.pid), plan).__enter__()
            with pytest.raises(TargetError, match="probed already"):
                detach_process(target.pid)
            controller.kill()
        target.terminate()


def test_counts_survive_the_end_of_the_target(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work"})
    with (
        at_work(program, 2) as target,
        attached(Process(target.pid), plan) as (engine, found),
    ):
        wait_until(lambda: counts(plan, found)["work"] > 1000)
        target.kill()
        assert engine.wait(60)
        assert counts(plan, found)["work"] > 1000
        found.detach()
        assert counts(plan, found)["work"] > 1000


def test_target_that_ends_during_attach_gives_a_message(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work"})
    chance = random.Random(2)
    for _ in range(15):
        with at_work(program, 2) as target:
            killer = ["sh", "-c", f"sleep {chance.uniform(0, 0.04):.3f}; kill -9 {target.pid}"]
            with subprocess.Popen(killer), contextlib.suppress(TargetError), attached(Process(target.pid), plan):
                pass
            target.wait(60)


def test_a_target_that_is_killed_while_it_stands_still_ends(build: Callable[..., Path]) -> None:
    with at_work(build("threads.c"), 3) as target:
        with StoppedThreads(target.pid) as threads:
            target.kill()
        wait_until(threads.reap)
        target.wait(60)
