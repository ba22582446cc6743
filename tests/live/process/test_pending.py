"""Probes in objects that are loaded later: they arm themselves, go with the object, and come back with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from process_harness import attached, code_of, counts, plan_for, redirected, started, wait_until

from kprobes.engines.process.procfs import read_maps
from kprobes.engines.process.target import Process
from kprobes.model.plan import Plan

pytestmark = pytest.mark.process

ROUNDS = 60
CALLS, SUM = 10, 42  # of a round, those of the library's constructor and destructor included


def pending(plan: Plan) -> Plan:
    return replace(plan, probes=tuple(replace(probe, is_pending=True) for probe in plan.probes))


@pytest.mark.parametrize("ways", [(), ("breakpoint",)])
def test_probe_arms_itself_each_time_its_library_comes(
    build: Callable[..., Path], tmp_path: Path, ways: tuple[str, ...]
) -> None:
    library, program = build("inside.c", "-shared", "-fPIC"), build("latecomer.c")
    plan, out = pending(plan_for(library, {"inside"}, ways=ways)), tmp_path / "out"
    target = Process.spawn([str(program), str(library)])
    with redirected(out, tmp_path / "err"), attached(target, plan) as (engine, found):
        assert found.armed == ()
        assert engine.wait(60)
        assert (out.read_bytes(), engine.exit_status) == (b"n 2997000\n", 0)
        assert counts(plan, found)["inside"] == 3000
        found.refresh()
        assert {armed.number for armed in found.armed} == {0}


def test_what_came_later_is_taken_away_too(build: Callable[..., Path]) -> None:
    library, program = build("inside.c", "-shared", "-fPIC"), build("latecomer.c")
    plan = pending(plan_for(library, {"inside"}))
    with started(program, str(library), "wait") as process:
        with attached(Process(process.pid), plan) as (_, found):
            assert process.stdout
            assert process.stdout.readline() == b"loaded\n"
            while not found.armed:
                found.poll(0.01)
                found.refresh()
            code = code_of(process.pid, library)
            found.detach()
            assert found.left == ()
            assert code_of(process.pid, library) != code
            assert all("kprobes" not in one.path for one in read_maps(process.pid))

        output, _ = process.communicate(b"\n", timeout=60)
        assert (output, process.returncode) == (b"n 2997000\n", 0)


def test_a_disabled_site_rests_when_its_library_comes_back(build: Callable[..., Path]) -> None:
    library, program = build("plugin.c", "-shared", "-fPIC"), build("plugins.c")
    plan = pending(plan_for(library, {"inside"}))
    with started(program, str(library), "1000000", "move") as process:
        assert process.stdout
        process.stdout.readline()
        with attached(Process(process.pid), plan) as (_, found):
            assert process.stdin
            process.stdin.write(b"\n")
            process.stdin.flush()
            wait_until(lambda: counts(plan, found)["inside"] > 50)
            found.disable(0)
            rests = counts(plan, found)["inside"]
            time.sleep(0.4)
            assert counts(plan, found)["inside"] == rests
            found.enable(0)
            wait_until(lambda: counts(plan, found)["inside"] > rests + 50)
            assert process.poll() is None
        process.kill()


def test_a_library_that_never_comes_does_no_harm(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    real = plan_for(program, {"work"})
    absent = replace(real.sites[0], name="absent", path="/usr/lib/absent.so", probe=1)
    plan = replace(
        real,
        probes=(*real.probes, replace(real.probes[0], is_pending=True)),
        sites=(*real.sites, absent),
        attachments=(replace(real.attachments[0], sites=(0, 1)),),
    )
    with started(program, "2", "20000", "wait") as process:
        assert process.stdout
        process.stdout.readline()
        with attached(Process(process.pid), plan) as (_, found):
            output, _ = process.communicate(b"\n", timeout=60)
            assert output == b"calls 40000\n"
            assert counts(plan, found) == {"work": 40_000, "absent": 0}


@pytest.mark.parametrize("where", ["same", "move"])
@pytest.mark.parametrize("ways", [(), ("breakpoint",)])
def test_no_call_is_missed_from_the_first_constructor_to_the_last_destructor(
    build: Callable[..., Path], ways: tuple[str, ...], where: str
) -> None:
    library, program = build("plugin.c", "-shared", "-fPIC"), build("plugins.c")
    plan = pending(plan_for(library, {"inside"}, ways=ways))
    with started(program, str(library), str(ROUNDS), where) as process:
        assert process.stdout
        process.stdout.readline()
        with attached(Process(process.pid), plan) as (_, found):
            output, _ = process.communicate(b"\n", timeout=100)
            calls = ROUNDS * CALLS
            assert (output, process.returncode) == (b"sum %d\ncalls %d\n" % (ROUNDS * SUM, calls), 0)
            assert counts(plan, found)["inside"] == calls


def test_of_a_program_that_is_started_no_call_is_missed(build: Callable[..., Path], tmp_path: Path) -> None:
    library, program = build("plugin.c", "-shared", "-fPIC"), build("plugins.c")
    plan, out = pending(plan_for(library, {"inside"})), tmp_path / "out"
    target = Process.spawn([str(program), str(library), "10"])
    with redirected(out, tmp_path / "err"), attached(target, plan) as (engine, found):
        assert engine.wait(60)
        assert out.read_bytes() == b"ready\nsum 420\ncalls 100\n"
        assert counts(plan, found)["inside"] == 100


@pytest.mark.parametrize("flags", [(), ("-static",)])
def test_code_that_comes_without_the_loader_is_found_after_a_while(
    build: Callable[..., Path], flags: tuple[str, ...]
) -> None:
    library, program = build("inside.c", "-shared", "-fPIC"), build("mapper.c", *flags)
    plan = pending(plan_for(library, {"inside"}))
    content = library.read_bytes()
    with started(program, str(library), hex(plan.sites[0].address)) as process:
        assert process.stdin
        assert process.stdout
        with attached(Process(process.pid), plan) as (_, found):
            for _ in range(3):
                assert process.stdout.readline() == b"mapped\n"
                wait_until(lambda: code_of(process.pid, library)[: len(content)] != content)
                process.stdin.write(b"\n")
                process.stdin.flush()
            output, _ = process.communicate(timeout=60)
            assert (output, process.returncode) == (b"n 29700\n", 0)
            assert counts(plan, found)["inside"] == 300


def test_nothing_of_the_loaders_stays_changed(build: Callable[..., Path]) -> None:
    library, program = build("plugin.c", "-shared", "-fPIC"), build("plugins.c")
    plan = pending(plan_for(library, {"inside"}))
    with started(program, str(library), "50") as process:
        assert process.stdout
        process.stdout.readline()
        loader = next(Path(one.path) for one in read_maps(process.pid) if "/ld-linux" in one.path)
        code = code_of(process.pid, loader)
        with attached(Process(process.pid), plan):
            assert code_of(process.pid, loader) != code
        assert code_of(process.pid, loader) == code
        output, _ = process.communicate(b"\n", timeout=60)
        assert (output, process.returncode) == (b"sum 2100\ncalls 500\n", 0)


def test_a_command_names_a_library_that_is_yet_to_be_loaded(build: Callable[..., Path]) -> None:
    library, program = build("plugin.c", "-shared", "-fPIC"), build("plugins.c")
    command = [Path(sys.executable).parent / "kprobes", "count", f"{library}:inside", "--", program, library, "20"]
    done = subprocess.run(command, input=b"\n", capture_output=True, timeout=60, check=True)
    assert re.search(rb"^200 hits ", done.stderr, re.MULTILINE)
    assert b"is not loaded yet" in done.stderr
    command[2] = "libnosuch:inside"
    done = subprocess.run(command, input=b"\n", capture_output=True, timeout=60, check=False)
    assert done.returncode
    assert b"no program or library 'libnosuch'" in done.stderr


def test_children_load_the_library_too_and_live(build: Callable[..., Path]) -> None:
    library, program = build("plugin.c", "-shared", "-fPIC"), build("family.c")
    plan = pending(plan_for(library, {"inside"}))
    with started(program, str(library), "20") as process:
        assert process.stdout
        process.stdout.readline()
        with attached(Process(process.pid), plan) as (_, found):
            output, _ = process.communicate(b"\n", timeout=60)
            assert (output, process.returncode) == (b"well 40\ncalls 20\n", 0)
            hits = counts(plan, found)["inside"]
            assert 20 * 4 <= hits <= 2 * 20 * 4  # a child that was forked while it was loaded has the jump


def test_after_the_controller_is_killed_the_library_comes_and_goes_as_before(build: Callable[..., Path]) -> None:
    library, program = build("plugin.c", "-shared", "-fPIC"), build("plugins.c")
    plan = pending(plan_for(library, {"inside"}))
    with started(program, str(library), "0") as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        child = os.fork()
        if not child:
            try:
                with attached(Process(process.pid), plan):
                    process.stdin.write(b"\n")
                    process.stdin.flush()
                    time.sleep(60)
            finally:
                os._exit(1)
        wait_until(lambda: any("kprobes" in one.path for one in read_maps(process.pid)))
        time.sleep(0.3)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        wait_until(lambda: all("kprobes" not in one.path for one in read_maps(process.pid)))
        process.terminate()
        output, _ = process.communicate(timeout=60)
        total, calls = map(int, output.split()[1::2])
        assert (total * CALLS, process.returncode) == (calls * SUM, 0)
        assert calls
