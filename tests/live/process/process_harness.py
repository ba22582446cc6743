"""Plans for the functions of a program, and what the live tests do with them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kprobes.engines.process.attached import ProcessAttached
from kprobes.engines.process.engine import ProcessEngine
from kprobes.engines.process.procfs import read_maps
from kprobes.engines.process.target import Process
from kprobes.model.plan import COUNT_ONLY, Attachment, CodeObject, Plan, PlannedProbe, Site

LONGEST_S = 120.0
PF_EXITING = 4  # include/linux/sched.h


def functions_of(path: Path) -> list[tuple[str, int, int]]:
    """Return (name, file offset, size) of the functions in the symbol table; of names at one address the first."""
    shift = _text_shift(path)
    listed = subprocess.run(["nm", "-S", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    found: dict[int, tuple[str, int, int]] = {}
    for line in listed.splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[2] in "tTwWi":
            address = int(fields[0], 16)
            found.setdefault(address, (fields[3], address - shift, int(fields[1], 16)))
    return list(found.values())


def _text_shift(path: Path) -> int:
    """Return virtual address minus file offset of the executable segment."""
    listed = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        fields = line.split()
        if fields and fields[0] == "LOAD" and "E" in "".join(fields[6:8]):
            return int(fields[2], 16) - int(fields[1], 16)
    raise AssertionError(f"{path} has no code")


def plan_for(
    path: Path, names: set[str] | None = None, *, without: frozenset[str] = frozenset(), ways: tuple[str, ...] = ()
) -> Plan:
    """Return a plan that counts the functions called *names* of the program, or all but *without*, by *ways*."""
    functions = functions_of(path)
    # A cold part is no function: it is only jumped to, and may begin with what can't be moved.
    functions = [one for one in functions if not one[0].endswith(".cold")]
    wanted = [one for one in functions if (names is None or one[0] in names) and one[0] not in without]
    assert wanted, f"no function of {path} is called {names}"
    sites = tuple(
        Site(0, name, name, address=offset, path=os.path.realpath(path), size=size) for name, offset, size in wanted
    )
    known = CodeObject(os.path.realpath(path), tuple((start, start + size) for _, start, size in functions if size))
    return Plan(
        (PlannedProbe("uprobe", path.name, ways),),
        sites,
        (),
        (),
        (Attachment(COUNT_ONLY, tuple(range(len(sites)))),),
        (),
        objects=(known,),
    )


@contextmanager
def attached(
    target: Process, plan: Plan, *, in_thread: bool | None = None
) -> Iterator[tuple[ProcessEngine, ProcessAttached]]:
    with ProcessEngine(target, in_thread=in_thread) as engine:
        found = engine.attach(plan)
        try:
            yield engine, found
        finally:
            found.close()


def counts(plan: Plan, found: ProcessAttached) -> dict[str, int]:
    return {site.name: counter[0] for site, counter in zip(plan.sites, found.counters(), strict=True)}


def code_of(pid: int, path: Path) -> bytes:
    mapping = next(one for one in read_maps(pid) if one.executable and one.path == os.path.realpath(path))
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        memory.seek(mapping.start)
        return memory.read(mapping.end - mapping.start)


@contextmanager
def redirected(out: Path, err: Path) -> Iterator[None]:
    """Start programs with a line end on standard input and their output in files, as a shell would."""
    saved = [os.dup(stream) for stream in range(3)]
    source = out.with_name("in")
    source.write_bytes(b"\n")
    opened = [os.open(source, os.O_RDONLY), *(os.open(path, os.O_CREAT | os.O_WRONLY) for path in (out, err))]
    try:
        for stream, file in enumerate(opened):
            os.dup2(file, stream)
            os.close(file)
        yield
    finally:
        for stream, file in enumerate(saved):
            os.dup2(file, stream)
            os.close(file)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds; fail where that takes longer than any machine needs."""
    end = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < end, "what was waited for didn't come"
        time.sleep(0.002)


def is_dead(pid: int) -> bool:
    """Tell whether a process that was killed has ended, whoever waits for it."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def is_ending(pid: int) -> bool:
    """Tell whether a process has ended, or is about to: its memory may be gone already."""
    try:
        return is_dead(pid) or bool(
            int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6]) & PF_EXITING
        )
    except OSError:
        return True


@contextmanager
def started(program: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start *program* with pipes; what is left of it at the end is killed."""
    command = [program, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@contextmanager
def at_work(program: Path, threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start `threads.c`, built as *program*, and wait until all its *threads* are there: it maps nothing any more."""
    with started(program, str(threads)) as process:
        wait_until(lambda: len(list(Path(f"/proc/{process.pid}/task").iterdir())) > threads)
        yield process
