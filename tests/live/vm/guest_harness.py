"""What the tests do with a guest: run its programs, attach probes, run the command `kprobes` against it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import kprobes
from kprobes.engines.vm.guestcommand import GuestCommand
from kprobes.engines.vm.machine import Machine
from kprobes.events.record import Event
from kprobes.model.probe import Probe

ROOT = Path(__file__).parents[3]
KPROBES = [sys.executable, "-m", "kprobes.cli.main"]
TIMEOUT_S = 300.0  # for what takes a second on a machine that has nothing else to do


@dataclass(frozen=True)
class Done:
    """How a command ended, with what it wrote."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class Guest:
    """The running guest of one kernel, shared by all tests."""

    kernel: str
    machine: Machine
    programs: Path
    copied: set[str] = field(default_factory=set)

    @property
    def preemptible(self) -> bool:
        """Return whether the kernel takes the CPU away from a program of the trampoline, as 7.2 does by default.

        Until that goes on the same one is skipped for other threads on that CPU, and counted as missed.
        """
        return self.kernel.startswith("7.2")

    @property
    def target(self) -> kprobes.Machine:
        """Return what `attach(to=...)` takes; closing the session leaves the guest up."""
        return kprobes.Machine(self.kernel)

    def attach(self, *probes: Probe) -> kprobes.Session:
        """Attach *probes* in the guest through a connection of their own."""
        return kprobes.attach(*probes, to=self.target)

    def start(self, program: str, *arguments: object, pinned: bool = False) -> GuestCommand:
        """Start one of the tests' programs, *pinned* to a CPU or not; it waits for `finish` before its first call."""
        copy = [] if program in self.copied else [str(self.programs / program)]
        self.copied.add(program)
        stay = ["taskset", "1"] if pinned else []
        return self.machine.run([*stay, f"/root/{program}", "-w", *map(str, arguments)], copy=copy, input=True)

    def call(self, *arguments: object) -> int:
        """Run the program `calls` to its end; return its process id."""
        return finish(self.start("calls", *arguments))

    def shell(self, script: str) -> Done:
        """Run a shell script in the guest."""
        running = self.machine.run(["sh", "-c", script])
        status = running.wait(TIMEOUT_S)
        assert status is not None, f"still running: {script}"
        return Done(status, running.output.decode(), running.error_output.decode())

    def command(self, name: str, *words: str, status: int | None = 0) -> Done:
        """Run `kprobes NAME --kernel ... WORDS` against this guest; *status* is how it must end."""
        return run_kprobes(name, f"--kernel={self.kernel}", *words, status=status)


def finish(command: GuestCommand) -> int:
    """Let a program of `Guest.start` make its calls; return its process id once every call did what it should."""
    command.write(b"\n")
    status = command.wait(TIMEOUT_S)
    assert status == 0, (status, command.error_output)
    return command.pid


def run_kprobes(*words: str, status: int | None = 0, environment: dict[str, str] | None = None, text: str = "") -> Done:
    """Run the command `kprobes` in a process of its own, in the project's root; *text* is its standard input."""
    done = subprocess.run(
        [*KPROBES, *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=ROOT,
        env=environment if environment is not None else dict(os.environ),
        input=text,
    )
    assert status is None or done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
    return Done(done.returncode, done.stdout, done.stderr)


def drained(session: kprobes.Session) -> list[Event]:
    """Detach, and return every event that was recorded before."""
    session.detach()
    return list(session.events(0))


def hits(session: kprobes.Session) -> int:
    """Return the hits of all sites of a session after detaching it."""
    session.detach()
    return sum(one.hits for one in session.stats)


def complete(guest: Guest, session: kprobes.Session, found: int, expected: int) -> bool:
    """Return whether *found* of *expected* hits are all, or all that a preemptible kernel didn't skip and count."""
    if found == expected and lossless(session):
        return True
    missed = sum(one.missed or 0 for one in session.stats)
    return guest.preemptible and found <= expected <= found + missed


def lossless(session: kprobes.Session) -> bool:
    """Return whether every hit was handled and every event arrived, as far as this kernel tells."""
    return all(one.clean for one in session.stats)


LEFT = "cat /sys/kernel/debug/kprobes/list /sys/kernel/tracing/kprobe_events /sys/kernel/tracing/uprobe_events"


def left_in(guest: Guest) -> str:
    """Return the probes that are in the guest's kernel: none, after a while, where no session is open."""
    script = f'for i in $(seq 600); do [ -z "$({LEFT})" ] && break; usleep 100000; done; {LEFT}'
    return guest.shell(script).output
