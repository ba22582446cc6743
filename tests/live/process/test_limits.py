"""Targets that forbid, lack or hide something: they are probed all the same, or refused with the reason, unharmed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from process_harness import at_work, attached, code_of, counts, is_dead, plan_for, redirected, started, wait_until

from kprobes.engines.process.procfs import read_maps
from kprobes.engines.process.target import Process, identify
from kprobes.errors import KprobesError, PrivilegeError, TargetError, UnprobeableError, UnsupportedError, UsageError

pytestmark = pytest.mark.process


def start_limited(program: Path, how: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([program, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.skipif(os.geteuid() != 0, reason="lifting a seccomp filter needs CAP_SYS_ADMIN")
@pytest.mark.parametrize("how", ["seccomp", "strict"])
def test_process_with_a_seccomp_filter_is_probed(build: Callable[..., Path], how: str) -> None:
    program = build("limited.c")
    plan = plan_for(program, {"work"})
    with start_limited(program, how) as process, attached(Process(process.pid), plan) as (_, found):
        output, _ = process.communicate(b"\n", timeout=60)
        assert output == b"count work 100000\n"
        assert counts(plan, found)["work"] == 100_000
        assert process.returncode == 0


COUNT_ONCE = Path(__file__).parent / "count_once.py"


@pytest.mark.skipif(os.geteuid() != 0, reason="drops CAP_SYS_ADMIN")
def test_in_a_container_whose_filter_all_share_a_process_is_probed(build: Callable[..., Path]) -> None:
    command = [build("filtered.c"), sys.executable, COUNT_ONCE, build("limited.c"), "work", "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "counted 100000\ncount work 100000\n", done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="drops CAP_SYS_ADMIN")
@pytest.mark.parametrize("first", [("-",), ()])
def test_a_filter_that_cannot_be_lifted_is_left_alone(build: Callable[..., Path], first: tuple[str, ...]) -> None:
    command = [build("filtered.c"), *first, sys.executable, COUNT_ONCE, build("limited.c"), "work", "seccomp"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    first_line, *rest = done.stdout.splitlines()
    assert first_line.startswith("PrivilegeError process "), done.stderr
    assert first_line.endswith("has a seccomp filter, which might kill it for what an attach needs")
    assert rest == ["count work 100000"]


@pytest.mark.parametrize(("how", "why"), [("as", "Cannot allocate memory"), ("files", "Too many open files")])
def test_process_without_room_or_descriptors_is_refused_unharmed(
    build: Callable[..., Path], how: str, why: str
) -> None:
    program = build("limited.c")
    plan = plan_for(program, {"work"})
    with start_limited(program, how) as process:
        code, mappings = code_of(process.pid, program), read_maps(process.pid)
        with pytest.raises(KprobesError, match=why):
            attached(Process(process.pid), plan).__enter__()
        assert code_of(process.pid, program) == code
        assert read_maps(process.pid) == mappings
        output, _ = process.communicate(b"\n", timeout=60)
        assert output == b"count work 100000\n"


def test_program_that_fills_the_memory_around_its_code_is_refused_unharmed(build: Callable[..., Path]) -> None:
    program = build("crowded.c")
    plan = plan_for(program, {"work"})
    with started(program) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        code, mappings = code_of(process.pid, program), read_maps(process.pid)
        with pytest.raises(KprobesError, match="no free memory"):
            attached(Process(process.pid), plan).__enter__()
        assert code_of(process.pid, program) == code
        assert read_maps(process.pid) == mappings
        output, _ = process.communicate(b"\n", timeout=60)
        assert output == b"count work 100000\n"


def test_a_failing_site_leaves_nothing_of_the_batch(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work", "loop"})
    middle = replace(plan.sites[1], offset=1)
    gone = replace(plan.sites[0], path="/usr/lib/nothing.so")
    data = replace(plan.sites[0], address=1 << 30)
    with at_work(program, 1) as process:
        code, mappings = code_of(process.pid, program), len(read_maps(process.pid))
        with pytest.raises(UnprobeableError, match="not the start of an instruction"):
            attached(Process(process.pid), replace(plan, sites=(plan.sites[0], middle))).__enter__()
        with pytest.raises(UnprobeableError, match="is not mapped"):
            attached(Process(process.pid), replace(plan, sites=(gone,))).__enter__()
        with pytest.raises(UnprobeableError, match="no executable code"):
            attached(Process(process.pid), replace(plan, sites=(data,))).__enter__()
        assert code_of(process.pid, program) == code
        assert len(read_maps(process.pid)) == mappings
        process.terminate()


def test_processes_that_cannot_be_probed_are_refused_with_the_reason() -> None:
    with pytest.raises(TargetError, match="there is no process 4194999"):
        Process(4_194_999).open()
    with pytest.raises(TargetError, match="thread of the kernel"):
        Process(2).open()
    with subprocess.Popen(["true"]) as child:
        wait_until(lambda: is_dead(child.pid))
        with pytest.raises(TargetError, match="zombie"):
            Process(child.pid).open()
    with pytest.raises(UsageError, match="can't be started: No such file"):
        Process.spawn(["/nothing/here"]).open()
    with pytest.raises(UsageError, match="can't be started: Permission denied"):
        Process.spawn(["/etc/passwd"]).open()


def test_a_32_bit_process_is_refused(build: Callable[..., Path]) -> None:
    program = build("narrow.c", "-m32", "-nostdlib", "-static", "-ffreestanding", "-fno-pic", "-no-pie")
    with subprocess.Popen([program]) as process:
        try:
            with pytest.raises(UnsupportedError, match="32-bit code") as refused:
                Process(process.pid).open()
            assert refused.value.hint
            assert process.poll() is None
        finally:
            process.kill()
    with pytest.raises(UnsupportedError, match="32-bit code"):
        Process.spawn([str(program)]).open().close()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_process_of_another_user_is_refused_with_the_way_out(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    with started(program, "1") as process:
        answer, said = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.setgid(65534)
                os.setuid(65534)
                identify(process.pid)
            except PrivilegeError as error:
                os.write(said, f"{error.what} | {error.hint}".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(said)
        text = os.read(answer, 4096).decode()
        os.close(answer)
        process.terminate()
        assert text.endswith("it belongs to user 0, we are user 65534 | run as that user, or as root")


def test_process_under_another_tracer_is_refused(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    with started(program, "1") as process:
        script = (
            "import sys, time; from kprobes.engines.process import ptrace\n"
            "ptrace.seize(int(sys.argv[1])); print('traced', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", script, str(process.pid)], stdout=subprocess.PIPE) as tracer:
            assert tracer.stdout
            assert tracer.stdout.readline() == b"traced\n"
            with pytest.raises(TargetError, match=f"traced by process {tracer.pid}"):
                Process(process.pid).open()
            tracer.kill()
        process.terminate()


def are_stopped(pid: int) -> bool:
    return all("T (stopped)" in (task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir())


def test_stopped_process_stays_stopped(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    plan = plan_for(program, {"work"})
    with at_work(program, 2) as process:
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: are_stopped(process.pid))
        with attached(Process(process.pid), plan) as (_, found):
            wait_until(lambda: are_stopped(process.pid))
            assert counts(plan, found)["work"] == 0
            process.send_signal(signal.SIGCONT)
            wait_until(lambda: counts(plan, found)["work"])
        process.terminate()
        assert b"wrong" not in process.communicate(timeout=60)[0]


def test_library_that_is_unloaded_takes_its_probe_along(build: Callable[..., Path], tmp_path: Path) -> None:
    library, program = build("inside.c", "-shared", "-fPIC"), build("unload.c")
    plan, out = plan_for(program, {"work"}), tmp_path / "out"
    arguments = [str(program), str(library), "300"]
    with redirected(out, tmp_path / "err"), attached(Process.spawn(arguments), plan) as (engine, found):
        assert engine.wait(60)
        assert engine.exit_status == 0
        assert b"count work 300\n" in out.read_bytes()
        assert counts(plan, found)["work"] == 300


@pytest.mark.parametrize("ways", [(), ("breakpoint",)])
def test_probe_in_a_library_ends_with_the_library(
    build: Callable[..., Path], tmp_path: Path, ways: tuple[str, ...]
) -> None:
    library, program = build("inside.c", "-shared", "-fPIC"), build("unload.c")
    plan = plan_for(library, {"inside"}, ways=ways)
    plain = subprocess.run([program, library, "300"], capture_output=True, timeout=60)
    with started(program, str(library), "300") as process:
        assert process.stdout
        cycles = 0
        while process.poll() is None:
            try:
                with attached(Process(process.pid), plan) as (_, found):
                    cycles += 1
                    time.sleep(0.001)
                    assert counts(plan, found)["inside"] <= 300
            except (TargetError, UnprobeableError):
                pass
        output, _ = process.communicate(timeout=60)
        assert (output, process.returncode) == (plain.stdout, 0)


@pytest.mark.parametrize("ways", [(), ("breakpoint",)])
def test_program_that_executes_another_goes_on_without_probes(
    build: Callable[..., Path], tmp_path: Path, ways: tuple[str, ...]
) -> None:
    program = build("execs.c")
    plan, out = plan_for(program, {"work"}, ways=ways), tmp_path / "out"
    with redirected(out, tmp_path / "err"), attached(Process.spawn([str(program), "3"]), plan) as (engine, found):
        assert engine.wait(60)
        assert engine.exit_status == 0
        assert out.read_bytes() == b"done 1000\n"
        assert counts(plan, found)["work"] == 1000


def test_exec_during_attach_harms_nobody(build: Callable[..., Path]) -> None:
    program = build("execs.c")
    plan = plan_for(program, {"work"})
    tried = 0
    while tried < 2:
        with started(program, "300", "2000") as process:
            while process.poll() is None:
                with contextlib.suppress(TargetError, UnprobeableError), attached(Process(process.pid), plan):
                    pass
                tried += 1
            output, _ = process.communicate(timeout=60)
            assert (output, process.returncode) == (b"done 1000\n", 0)


def test_refusals_have_a_hint() -> None:
    from kprobes.engines.process.target import explain_refusal

    for uids, euid, yama, capable in [
        ((0,), 1000, 0, False),
        ((1000,), 1000, 1, False),
        ((1000,), 1000, 2, False),
        ((1000,), 1000, 3, False),
        ((1000,), 1000, 0, False),
        ((1000,), 0, 0, False),
        ((1000,), 0, 0, True),
    ]:
        why, hint = explain_refusal(uids, euid, yama, capable)
        assert why
        assert hint
    assert issubclass(PrivilegeError, PermissionError)
    assert issubclass(UnsupportedError, TargetError)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a set-user-ID program")
def test_a_set_user_id_program_that_is_executed_has_its_rights_and_no_probes(build: Callable[..., Path]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        climb, whoami = (Path(shutil.copy(build(name), directory)) for name in ("climb.c", "whoami.c"))
        whoami.chmod(0o4755)
        user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        command = [*user, sys.executable, COUNT_ONCE, climb, "work", whoami]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "counted 1000\nruns as 0\n", done.stderr
