"""Machines come up, run commands, and leave nothing behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kprobes.engines.vm.kernels import KERNEL_NAMES, cached_kernel
from kprobes.engines.vm.machine import Machine, RunningMachine, open_machine
from kprobes.errors import TargetError, UsageError

WAIT_S = 300.0


@pytest.fixture(params=KERNEL_NAMES)
def each(request, machine):
    return machine(request.param)


@pytest.fixture
def one(machine):
    return machine("6.12")


def done(command):
    status = command.wait(WAIT_S)
    assert status is not None
    return status, command.output, command.error_output


def gone(pid):
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_each_kernel_boots_and_is_the_one_that_was_asked_for(each):
    status, output, _ = done(each.run(["uname", "-r"]))
    assert status == 0
    assert output.decode().startswith(f"{each.kernel}.") or each.kernel == "7.2"  # testing's kernel moves on
    assert output.decode().strip() == cached_kernel(each.kernel).release == each.facts().features.release


def test_each_guest_has_its_cpus_its_file_systems_and_its_loopback(each):
    _, output, _ = done(each.run(["sh", "-c", "nproc; cut -d' ' -f3 /proc/mounts; ip addr show lo; ls /dev/vport*"]))
    text = output.decode()
    assert text.startswith("2\n")
    for kind in ("proc", "sysfs", "devtmpfs", "tracefs", "debugfs", "bpf", "cgroup2"):
        assert f"\n{kind}\n" in text
    assert "127.0.0.1" in text


def test_the_facts_are_those_of_the_running_guest(each):
    facts = each.facts()
    _, output, _ = done(each.run(["sh", "-c", "grep ' T vfs_read$' /proc/kallsyms; md5sum < /sys/kernel/btf/vmlinux"]))
    line, checksum = output.decode().splitlines()
    assert f"\n{line}\n" in Path(facts.kallsyms()).read_text()
    assert not line.startswith("0000000000000000")
    assert checksum.split()[0] == hashlib.md5(Path(facts.btf()).read_bytes()).hexdigest()
    assert "vfs_read" in facts.text("functions").split()
    assert "field:pid_t prev_pid" in facts.text("format:sched/sched_switch")
    assert facts.text("format:no/such") is None


def test_status_and_both_outputs_of_a_command_come_back(one):
    assert done(one.run(["sh", "-c", "echo out; echo err >&2; exit 7"])) == (7, b"out\n", b"err\n")


def test_a_command_killed_by_a_signal_has_its_negative_number(one):
    command = one.run(["sleep", "10000"])
    assert command.wait(0.1) is None
    command.kill(signal.SIGTERM)
    assert command.wait(WAIT_S) == -signal.SIGTERM


def test_a_program_that_is_not_there_is_refused(one):
    with pytest.raises(UsageError, match="no program 'no-such-thing'"):
        one.run(["no-such-thing"])


def test_a_copied_program_runs_with_the_libraries_it_needs(one, tmp_path):
    program = tmp_path / "own-ls"
    program.write_bytes(Path("/bin/ls").read_bytes())
    program.chmod(0o755)
    data = tmp_path / "data"
    data.write_bytes(b"content")
    command = one.run(["./own-ls", "/tmp/deep"], copy=[str(program), f"{data}:/tmp/deep/file"])
    assert done(command) == (0, b"file\n", b"")
    assert done(one.run(["cat", "/tmp/deep/file"]))[1] == b"content"


def test_a_file_that_can_not_be_copied_is_refused(one, tmp_path):
    with pytest.raises(UsageError, match="can't be copied"):
        one.run(["true"], copy=[str(tmp_path / "absent")])


def test_standard_input_is_passed_on(one):
    command = one.run(["tr", "a-z", "A-Z"], input=True)
    command.write(b"hello ")
    command.write(b"there")
    command.write(b"")
    assert done(command) == (0, b"HELLO THERE", b"")


def test_a_terminal_is_a_terminal_of_the_size_that_was_told(one):
    command = one.run(["sh"], terminal=True, input=True)
    command.resize(33, 101)
    command.write(b"tty; stty size; exit 4\n")
    status, output, _ = done(command)
    assert status == 4
    assert b"/dev/pts/" in output
    assert b"33 101" in output


def test_much_output_comes_whole_even_to_a_slow_reader(one):
    digest = hashlib.sha256()
    size = 0

    def slow(_descriptor, data):
        nonlocal size
        digest.update(data)
        size += len(data)
        time.sleep(0.002)

    command = one.run(["sh", "-c", "dd if=/dev/zero bs=1M count=24 2>/dev/null"], sink=slow)
    assert command.wait(WAIT_S) == 0
    assert size == 24 << 20
    assert digest.hexdigest() == hashlib.sha256(bytes(24 << 20)).hexdigest()


def test_what_a_command_leaves_behind_does_not_hold_it_up(one):
    status, output, _ = done(one.run(["sh", "-c", "sleep 10000 & echo $!"]))
    assert status == 0
    assert done(one.run(["kill", output.decode().strip()]))[0] == 0  # it was still there


def test_the_clock_is_the_hosts(one):
    before = time.time()
    _, output, _ = done(one.run(["date", "+%s"]))
    assert before - 5 <= int(output) <= time.time() + 5


def test_two_guests_of_one_image_draw_different_random_numbers(one):
    script = ["sh", "-c", "dd if=/dev/urandom bs=16 count=1 2>/dev/null | md5sum"]
    first = done(one.run(script))[1]
    with Machine("6.12") as other:
        assert done(other.run(script))[1] != first


def test_an_announced_machine_serves_a_second_client_at_once(one):
    other = open_machine("6.12")
    assert isinstance(other, RunningMachine)
    with other:
        other.wait_ready()
        slow = one.run(["sleep", "10000"])
        assert done(other.run(["echo", "here"]))[1] == b"here\n"
        assert slow.wait(0) is None
        slow.kill()
    assert done(one.run(["true"]))[0] == 0


CLIENT = """
import sys, time
from kprobes.engines.vm.machine import open_machine
machine = open_machine("6.12")
command = machine.run(["sleep", "4321"])
print(command.pid, machine.pid, flush=True)
time.sleep(10000)
"""


def client(environment=None):
    process = subprocess.Popen([sys.executable, "-c", CLIENT], stdout=subprocess.PIPE, text=True, env=environment)
    pid, qemu = process.stdout.readline().split()
    return process, int(pid), int(qemu)


def test_a_killed_client_takes_its_commands_with_it_and_frees_its_port(one):
    for _ in range(3):
        process, pid, _ = client()
        assert done(one.run(["kill", "-0", str(pid)]))[0] == 0
        process.kill()
        process.wait()
        script = f"for i in $(seq 2000); do kill -0 {pid} 2>/dev/null || exit 0; usleep 50000; done; exit 1"
        assert done(one.run(["sh", "-c", script]))[0] == 0


def test_a_killed_controller_leaves_no_qemu_and_its_directory_is_swept(tmp_path):
    process, _, qemu = client({**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})
    assert "qemu" in Path(f"/proc/{qemu}/cmdline").read_text()
    process.kill()
    process.wait()
    assert gone(qemu)


def test_closing_a_machine_ends_it_and_may_be_done_twice():
    machine = Machine("6.12")
    machine.start()
    machine.wait_ready()
    pid = machine.pid
    assert pid
    machine.close()
    machine.close()
    assert gone(pid)


def test_a_guest_that_dies_says_so_with_its_last_words():
    with Machine("6.12") as machine:
        command = machine.run(["sh", "-c", "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger"])
        with pytest.raises(TargetError, match=r"the guest died(.|\n)*sysrq triggered crash"):
            command.wait(WAIT_S)
        with pytest.raises(TargetError, match="the guest died"):
            machine.run(["true"])
        assert gone(machine.pid)


def test_a_damaged_image_is_made_again():
    with Machine("6.12", cpus=1, memory_mb=256) as machine:
        machine.wait_ready()
        image = machine._image
    image.state.write_bytes(image.state.read_bytes()[:1000])
    with Machine("6.12", cpus=1, memory_mb=256) as machine:
        assert done(machine.run(["nproc"]))[1] == b"1\n"
    assert image.state.stat().st_size > 1000


def test_clients_that_come_and_go_at_once_are_all_served(one):
    for _ in range(40):
        with open_machine("6.12") as other:
            other.wait_ready()
    assert done(one.run(["true"]))[0] == 0
