"""What `run --record` saves of a process, and what `replay` and `kprobes.testing` make of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from process_harness import functions_of

from kprobes.cli.run import load_script
from kprobes.testing import load, run

KPROBES = [sys.executable, "-m", "kprobes.cli.main"]
PROGRAM = r"""
#include <stdlib.h>
struct item { int id; const char *name; struct item *next; };
__attribute__((noinline)) int weigh(struct item *item, long factor)
{
	return item->next ? weigh(item->next, factor + 1) + item->id : item->id * factor;
}
int main(void)
{
	struct item last = {3, "last", NULL}, first = {1, "first", &last};
	for (int i = 0; i < 100; i++)
		if (weigh(&first, i) != 3 * (i + 1) + 1)
			return 1;
	return 0;
}
"""
SCRIPT = """
from kprobes import *
weights = Histogram("weights", by=str)

@uretprobe("weigh")
def weigh(item, factor):
    name = item.name.string(16)
    start = now()
    ret = yield
    weights.add(ret, by=name)
    emit(ret, name, factor, comm, id=item.id, later=now() >= start, pid=pid)
"""
CHANGED = SCRIPT.replace("emit(ret, name,", "emit(item.next is None,").replace(
    "id=item.id", "doubled=ret * 2, at=regs.ip"
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the program, the scripts, a recording of a run, and its output."""
    directory = tmp_path_factory.mktemp("recorded")
    (directory / "weigh.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-g", "-O1", "-o", "weigh", "weigh.c"], cwd=directory, check=True)
    (directory / "script.py").write_text(SCRIPT)
    (directory / "changed.py").write_text(CHANGED)
    done = kprobes(directory, "run", "--record", "hits", "--format", "json", "script.py", "--", "./weigh")
    assert "recorded 400 contexts" in done.stderr
    (directory / "seen").write_text("".join(line for line in done.stderr.splitlines(True) if line.startswith("{")))
    return directory


def kprobes(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*KPROBES, *words], cwd=directory, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done


def test_a_replay_comes_to_the_same_events_and_maps(recorded: Path) -> None:
    done = kprobes(recorded, "replay", "--strict", "--format", "json", "hits", "script.py")
    assert done.stdout == (recorded / "seen").read_text()
    assert len(done.stdout.splitlines()) > 200


def test_a_changed_handler_runs_on_what_was_recorded(recorded: Path) -> None:
    done = kprobes(recorded, "replay", "--format", "json", "hits", "changed.py")
    rows = [json.loads(line) for line in done.stdout.splitlines() if '"event"' in line]
    seen = [json.loads(line) for line in (recorded / "seen").read_text().splitlines() if '"event"' in line]
    assert [row["doubled"] for row in rows] == [2 * row["ret"] for row in seen]
    assert all(row["at"] for row in rows)
    assert "hits that read memory which was not recorded" in done.stderr


def test_recorded_hits_run_in_plain_python(recorded: Path) -> None:
    frames = load(str(recorded / "hits"))
    assert len(frames) == 200
    assert {frame.site for frame in frames} == {"weigh:weigh"}
    names = load_script(str(recorded / "script.py"))
    done = run(names["weigh"], *frames)
    seen = [json.loads(line) for line in (recorded / "seen").read_text().splitlines() if '"event"' in line]
    wanted = {(row["ret"], row["name"], row["factor"], row["id"]) for row in seen}
    assert {(one.ret, one.name, one.factor, one.id) for one in done.events} == wanted
    assert done[names["weights"]]["last"].total == 100
    assert done.faults == 0


def test_definitions_are_recorded_and_replayed_too(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("fetched.c")
    place = f"{program}:{next(at for name, at, _ in functions_of(program) if name == 'work'):#x}"
    script = tmp_path / "script.py"
    fetched = "text=+0(%si):string n=%dx:s32 sizes=+56(%di):u16[4] next=+2(+48(%di)):string $comm"
    texts = [f"p:entry {place} {fetched}", f"r:back {place} ret=$retval:s32", f"p:other {place} n=%dx:s64 %ip $stack0"]
    script.write_text(f"from kprobes import definition\nprobes = [definition(one) for one in {texts}]\n")
    for engine in ("process", "uprobe"):
        words = ["--engine", engine, "--record", "hits", "--format", "json", str(script), "--", str(program), "3"]
        seen = untimed(kprobes(tmp_path, "run", *words).stderr)
        assert len(seen) == 18
        done = kprobes(tmp_path, "replay", "--format", "json", "hits", str(script))
        assert untimed(done.stdout) == seen
        assert "not recorded" not in done.stderr
        table = kprobes(tmp_path, "replay", "hits", str(script)).stdout
        assert 'text="hello" n=2 sizes={1,2,3,4} next="second"' in table
    changed = tmp_path / "changed.py"
    changed.write_text(
        f"from kprobes import definition\nprobe = definition('p:entry {place} half=%dx:s8 %di', filter='half < 0')\n"
    )
    rows = untimed(kprobes(tmp_path, "replay", "--format", "json", "hits", str(changed)).stdout)
    assert [row["args"]["half"] for row in rows] == [-1, -1, -2, -2]  # two were recorded there


def untimed(text: str) -> list[dict[str, Any]]:
    """Return the events in *text* without their times: those of a replay are when the hits began."""
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [{key: value for key, value in row.items() if not key.startswith("time")} for row in rows]
