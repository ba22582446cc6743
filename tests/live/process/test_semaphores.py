"""Reference counters of definitions: a program with static probes makes its calls only while somebody asks for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from process_harness import functions_of, started

from kprobes import Session, definition
from kprobes.engines.kernel.engine import KernelEngine
from kprobes.engines.process.engine import detach_process
from kprobes.engines.process.target import Process
from kprobes.errors import UnprobeableError
from kprobes.model.plan import Way
from kprobes.model.within import Within
from kprobes.session import attach_to
from kprobes.symbols.elf import ElfFile
from kprobes.symbols.elf_symbols import ElfSymbols

KPROBES = [sys.executable, "-m", "kprobes.cli.main"]
ENGINES = ("process", "uprobe", "tracefs")
# Attaches from a process of its own, which is to be killed together with its hand.
CONTROLLER = """
import sys, time
from kprobes import definition
from kprobes.engines.process.target import Process
from kprobes.model.within import Within
from kprobes.session import attach_to
engine = Process(int(sys.argv[1])).open()
session = attach_to(engine, *map(definition, sys.argv[2:]), within=Within(int(sys.argv[1]), native=True))
print("attached", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def program(build: Callable[..., Path]) -> Path:
    return build("semaphore.c")


def place(program: Path, function: str, semaphore: str = "") -> str:
    """Return the place of *function*, with the reference counter of its static probe, or of *semaphore*."""
    offset = next(at for name, at, _ in functions_of(program) if name == function)
    with ElfFile(str(program)) as elf:
        counter = elf.offset_of(ElfSymbols(elf).variables(f"{semaphore or function}_semaphore")[0].address)
    return f"{program}:{offset:#x}({counter:#x})"


@contextmanager
def running(program: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with started(program, *arguments) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield process


def told(process: subprocess.Popen[bytes]) -> list[int]:
    """Let the program go around once; return its two semaphores, and whether each function was called."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"go\n")
    process.stdin.flush()
    return [int(word) for word in process.stdout.readline().split()]


@contextmanager
def attached(engine: str, process: subprocess.Popen[bytes], *texts: str) -> Iterator[Session]:
    probes = [definition(text, way=Way.TRACEFS if engine == "tracefs" else "") for text in texts]
    native = engine == "process"
    opened = Process(process.pid).open() if native else KernelEngine()
    try:
        session = attach_to(opened, *probes, within=Within(process.pid, native=native))
    except BaseException:
        opened.close()
        raise
    with session:
        yield session


@pytest.mark.parametrize("engine", ENGINES)
def test_a_semaphore_is_one_more_while_its_probe_is_there(engine: str, program: Path) -> None:
    with running(program) as process:
        assert told(process) == [0, 0, 0, 0]
        with attached(engine, process, f"p:seen {place(program, 'traced')} n=%di:s64 line=+0(%si):string") as session:
            assert told(process) == [1, 0, 1, 0]
            assert told(process) == [1, 0, 1, 0]
            session.detach()
            assert told(process) == [0, 0, 0, 0]
            assert [(event["n"], event["line"]) for event in session.events(0)] == [(1, "go\n"), (2, "go\n")]
        assert told(process) == [0, 0, 0, 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_probes_of_several_places_share_a_semaphore(engine: str, program: Path) -> None:
    texts = [f"p:seen {place(program, 'traced')}", f"p:heard {place(program, 'other', 'traced')}"]
    with running(program) as process:
        with attached(engine, process, *texts, f"p:more {place(program, 'other', 'traced')}"):
            assert told(process) == [2, 0, 1, 0]  # two places: a second probe of one counts nothing
        assert told(process) == [0, 0, 0, 0]
        with attached(engine, process, *texts[:1], f"r:back {place(program, 'other')} $retval") as session:
            assert told(process) == [1, 1, 1, 1]
            session.detach()
            assert [event.layout.name for event in session.events(0)] == ["seen", "back"]
        assert told(process) == [0, 0, 0, 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_semaphore_rests_with_its_probe(engine: str, program: Path) -> None:
    texts = [f"p:seen {place(program, 'traced')}", f"p:heard {place(program, 'other')}"]
    with running(program) as process, attached(engine, process, *texts) as session:
        assert told(process) == [1, 1, 1, 1]
        session.disable(session.asked[0])
        assert told(process) == [0, 1, 0, 1]
        session.enable(session.asked[0])
        assert told(process) == [1, 1, 1, 1]


@pytest.mark.parametrize("engine", ENGINES[:2])
def test_commands_count_what_only_runs_while_somebody_counts(engine: str, program: Path) -> None:
    words = ["count", "--engine", engine, f"p:seen {place(program, 'traced')}", "--", str(program)]
    done = subprocess.run([*KPROBES, *words], input="a\nb\nc\n", capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["ready", *["1 0 1 0"] * 3]
    assert "3 hits" in done.stderr


def test_a_killed_controllers_hand_counts_down(program: Path) -> None:
    with running(program) as process:
        with controller(process, f"p:seen {place(program, 'traced')}") as command:
            assert told(process) == [1, 0, 1, 0]
            command.kill()
        # That waits until the hand has let go.
        with attached("process", process, f"p:heard {place(program, 'other')}"):
            assert told(process) == [0, 1, 0, 1]
        assert told(process) == [0, 0, 0, 0]


@pytest.mark.parametrize("how", ["detach", "attach"])
def test_what_a_killed_hand_has_counted_up_is_counted_down_once(how: str, program: Path) -> None:
    texts = [f"p:seen {place(program, 'traced')}", f"p:heard {place(program, 'other')}"]
    with running(program) as process:
        with controller(process, *texts) as command:
            hands = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
            assert hands
            for pid in (command.pid, *map(int, hands)):
                os.kill(pid, signal.SIGKILL)
        assert told(process) == [1, 1, 1, 1]
        if how == "detach":
            assert detach_process(process.pid) == 2
            assert told(process) == [0, 0, 0, 0]
            assert detach_process(process.pid) == 0
        else:
            with attached("process", process, texts[0]):
                assert told(process) == [1, 0, 1, 0]
        assert told(process) == [0, 0, 0, 0]


def test_a_semaphore_of_a_library_that_is_loaded_later_is_counted_up_each_time(
    build: Callable[..., Path],
) -> None:
    library = build("semaphore.c", "-shared", "-fPIC", "-Dmain=unused")
    text = f"p:seen {place(library, 'traced')}"
    with running(build("reloads.c"), str(library)) as process:
        with attached("process", process, text) as session:
            for _ in range(3):
                assert told(process) == [1, 0, 1, 0]  # it is unloaded behind each line
            session.detach()
            assert [one.hits for one in session.stats] == [3]
        assert told(process) == [0, 0, 0, 0]


def test_a_counter_that_is_not_in_writable_memory_is_refused_in_a_process(program: Path) -> None:
    where, _, _ = place(program, "traced").partition("(")
    with running(program) as process:
        for counter, why in (("0x10", "is not in writable memory"), (f"{odd(program):#x}", "lies at an odd offset")):
            with (
                pytest.raises(UnprobeableError, match=why),
                attached("process", process, f"p:seen {where}({counter})"),
            ):
                pass
        assert told(process) == [0, 0, 0, 0]


def odd(program: Path) -> int:
    return int(place(program, "traced").partition("(")[2].rstrip(")"), 16) + 1


def test_one_place_has_one_reference_counter_in_the_kernel(program: Path) -> None:
    texts = [f"p:seen {place(program, 'traced')}", f"p:more {place(program, 'traced', 'other')}"]
    with running(program) as process:
        with pytest.raises(UnprobeableError, match="another counter"), attached("uprobe", process, *texts):
            pass
        assert told(process) == [0, 0, 0, 0]


@contextmanager
def controller(process: subprocess.Popen[bytes], *texts: str) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-c", CONTROLLER, str(process.pid), *texts]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as command:
        try:
            assert command.stdout
            assert command.stdout.readline() == b"attached\n"
            yield command
        finally:
            command.kill()
