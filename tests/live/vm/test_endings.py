"""However a controller or a guest ends, nothing of ours stays: no QEMU, no probe, no program, no file."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest_harness import KPROBES, ROOT, TIMEOUT_S, Guest, left_in

WAIT_S = 200.0

SCRIPT = """
from kprobes import Count, emit, kprobe, kretprobe, tracepoint, uprobe

hits = Count("hits")

@kretprobe("vfs_read")
def by_trampoline(file):
    same = file
    got = yield
    emit(file=same, got=got)

@kretprobe("vfs_write", way="kprobe", maxactive=20)
def by_tracefs(file):
    got = yield
    hits.add(got)

@kprobe("vfs_open", way="kprobe")
def by_breakpoint():
    hits.add()

@kprobe("vfs_unlink", "vfs_rename")
def two():
    hits.add()

@tracepoint("sched:sched_process_exec")
def point():
    hits.add()

@uprobe("PROGRAM:sum_to")
def of_program():
    hits.add()
"""


def wait_until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def is_qemu(pid: int) -> bool:
    """Return whether *pid* runs QEMU; a process that has ended and waits to be reaped runs nothing."""
    try:
        return b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def guests_in(runtime: Path) -> list[int]:
    """Return the processes of QEMU whose sockets are in *runtime*."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"qemu-system" in words and bytes(runtime) in words:
            found.append(int(entry.name))
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts `kprobes` with its output in files; what still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def popen(*words: str, runtime: Path | None = None) -> subprocess.Popen[str]:
        environment = dict(os.environ)
        if runtime is not None:
            runtime.mkdir(mode=0o700, exist_ok=True)
            environment["XDG_RUNTIME_DIR"] = str(runtime)
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            one = subprocess.Popen([*KPROBES, *words], stdout=out, stderr=err, cwd=ROOT, env=environment, text=True)
        running.append(one)
        return one

    yield popen
    for one in running:
        if one.poll() is None:
            one.kill()
        one.wait()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def directories(runtime: Path) -> list[Path]:
    return list((runtime / "kprobes").glob("vm-*"))


@pytest.mark.usefixtures("newest")
@pytest.mark.parametrize("delay_s", [0.3, 1.0, None], ids=["starting", "attaching", "probing"])
def test_a_killed_command_takes_its_own_guest_with_it(start, tmp_path, delay_s):
    runtime = tmp_path / "runtime"
    command = start("trace", "--kernel=6.12", "vfs_read", runtime=runtime)
    if delay_s is None:
        wait_until(lambda: len(lines(tmp_path / "out")) > 2, "no hit")
    else:
        time.sleep(delay_s)
    guests = [child for child in children_of(command.pid) if is_qemu(child)]
    assert guests or delay_s is not None
    command.kill()
    command.wait()
    wait_until(lambda: not any(is_qemu(pid) for pid in guests), "QEMU is still there")
    wait_until(lambda: not guests_in(runtime), "a QEMU that was just started is still there")
    # The directory of sockets is a leftover that the next command removes once it is no longer new.
    for directory in directories(runtime):
        os.utime(directory, (time.time() - 100,) * 2)
    after = start("trace", "--kernel=6.12", "vfs_read", "-n", "1", runtime=runtime)
    assert after.wait(WAIT_S) == 0
    assert directories(runtime) == []


# Goes through the numbers of all loaded programs (BPF_PROG_GET_NEXT_ID); /proc/kallsyms has them too, but is long.
LIST_PROGRAMS = """
import struct
from kprobes.engines.kernel import syscall
number = 0
while True:
    request = syscall.buffer(struct.pack("<III", number, 0, 0))
    if syscall._bpf(11, request) < 0:
        break
    number = struct.unpack_from("<I", request, 4)[0]
    print(number)
"""


def programs_in(guest: Guest) -> set[int]:
    """Return the numbers of the BPF programs in the guest's kernel, which are given out once."""
    command = guest.machine.run(["python3", "-I", "-S", "-c", LIST_PROGRAMS])
    assert command.wait(TIMEOUT_S) == 0, command.error_output.decode()
    return {int(line) for line in command.output.split()}


@pytest.mark.parametrize("kernel", ["6.1", "7.2"])
def test_a_killed_command_leaves_no_probe_in_a_guest_that_stays(guest_of, start, tmp_path, kernel):
    guest = guest_of(kernel)
    program = str(guest.programs / "calls")
    assert guest.machine.run(["true"], copy=[f"{program}:{program}"]).wait(TIMEOUT_S) == 0
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("PROGRAM", program))
    before = programs_in(guest)
    command = start("run", f"--kernel={guest.kernel}", str(script))
    wait_until(lambda: len(lines(tmp_path / "out")) > 2 or command.poll() is not None, "no hit")
    assert command.poll() is None, (tmp_path / "err").read_text()
    assert len(programs_in(guest) - before) > 5
    probes = guest.shell("cat /sys/kernel/debug/kprobes/list /sys/kernel/tracing/kprobe_events").output
    assert "vfs_open" in probes
    assert "vfs_write" in probes
    command.kill()
    command.wait()
    wait_until(lambda: programs_in(guest) <= before, "programs are still loaded")
    assert left_in(guest) == ""


def test_killing_who_keeps_a_guest_ends_it_and_its_users_say_so(start, tmp_path):
    runtime = tmp_path / "runtime"
    keeper = start("vm", "--keep", "--kernel=6.12", runtime=runtime)
    wait_until(lambda: "the guest is up" in (tmp_path / "err").read_text(), "no guest")
    (pid,) = [child for child in children_of(keeper.pid) if is_qemu(child)]
    user = start("trace", "--kernel=6.12", "vfs_read", runtime=runtime)
    wait_until(lambda: len(lines(tmp_path / "out")) > 2, "no hit")
    assert [child for child in children_of(user.pid) if is_qemu(child)] == []
    keeper.kill()
    keeper.wait()
    wait_until(lambda: not is_qemu(pid), "QEMU is still there")
    assert user.wait(WAIT_S) == 1
    told = (tmp_path / "err").read_text()
    assert told.count("error: ") == 1
    assert "the guest is gone" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_a_kept_guest_ends_cleanly_when_asked(start, tmp_path, number):
    runtime = tmp_path / "runtime"
    keeper = start("vm", "--keep", "--kernel=6.12", runtime=runtime)
    wait_until(lambda: "the guest is up" in (tmp_path / "err").read_text(), "no guest")
    (pid,) = [child for child in children_of(keeper.pid) if is_qemu(child)]
    assert len(directories(runtime)) == 1
    keeper.send_signal(number)
    assert keeper.wait(WAIT_S) == 0
    wait_until(lambda: not is_qemu(pid), "QEMU is still there")
    assert directories(runtime) == []


@pytest.mark.parametrize("kernel", ["5.10", "7.2"])
def test_a_guest_that_dies_ends_the_command_with_its_last_words(guest_of, start, tmp_path, kernel):
    guest_of(kernel)  # so that its image is there
    runtime = tmp_path / "runtime"
    crash = "usleep 500000; echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 100"
    command = start("trace", f"--kernel={kernel}", "vfs_read", "--", "sh", "-c", crash, runtime=runtime)
    assert command.wait(WAIT_S) == 1
    told = (tmp_path / "err").read_text()
    assert told.count("error: ") == 1
    assert "the guest died" in told
    assert "sysrq triggered crash" in told
    assert "Traceback" not in told
    assert directories(runtime) == []


@pytest.mark.usefixtures("newest")
def test_a_killed_qemu_is_told_as_a_guest_that_died(start, tmp_path):
    runtime = tmp_path / "runtime"
    command = start("trace", "--kernel=6.12", "vfs_read", runtime=runtime)
    wait_until(lambda: len(lines(tmp_path / "out")) > 2, "no hit")
    (pid,) = [child for child in children_of(command.pid) if is_qemu(child)]
    os.kill(pid, signal.SIGKILL)
    assert command.wait(WAIT_S) == 1
    told = (tmp_path / "err").read_text()
    assert told.count("error: ") == 1
    assert "the guest died" in told
    assert directories(runtime) == []
