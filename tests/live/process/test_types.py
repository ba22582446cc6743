"""Probes in programs with debugging information: parameters by name, fields, casts, in both engines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.symbols.built import CPP, PROGRAMS, C, build

KPROBES = [sys.executable, "-m", "kprobes.cli.main"]
ENGINES = ([], ["--engine", "uprobe"])
SCRIPT = """
from kprobes import cast, emit, string, uprobe, uretprobe

@uprobe("visit")
def visited(item, label, n):
    part = cast(item, "struct item *").parts[0][1]
    emit(name=item.name.string(), label=label.string(), n=n, flags=item.flags, mode=item.mode, neg=item.neg,
         color=item.color == GREEN, ready=item.ready, b=part.b, after=arg(4))

@uretprobe("work")
def worked(k, last):
    result = yield
    emit(k=k, last=last, result=result)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("store"), C, "-g", "-O1")


def kprobes(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, **environment}
    return subprocess.run([*KPROBES, *words], capture_output=True, text=True, timeout=60, check=False, env=given)


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("engine", ENGINES, ids=("process", "uprobe"))
def test_handlers_take_parameters_and_fields_by_name(store, tmp_path, engine):
    script = tmp_path / "script.py"
    text = SCRIPT.replace("from kprobes import", "from kprobes import arg,").replace("== GREEN", "== -2")
    script.write_text(text.replace("after=arg(4)", "after=arg(3)"))
    output = tmp_path / "out.json"
    words = ("run", str(script), "--format", "json", "-o", str(output), *engine, "--", str(store), "2")
    done = kprobes(*words)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    visited = [row for row in rows if "label" in row]
    worked = [row for row in rows if "last" in row]
    assert [row["n"] for row in visited] == [0, 1]
    first = {"name": "one", "label": "label", "flags": 5, "mode": 7, "neg": -3, "color": True, "ready": False, "b": 0}
    assert first.items() <= visited[0].items()
    assert visited[1]["after"] == 1
    assert [(row["k"], row["last"], row["result"]) for row in worked] == [(0, 9, 9), (1, 9, 11)]


@pytest.mark.parametrize("engine", ENGINES, ids=("process", "uprobe"))
def test_trace_shows_arguments_by_name(store, tmp_path, engine):
    output = tmp_path / "out.json"
    done = kprobes("trace", "visit", "--format", "json", "-o", str(output), *engine, "--", str(store), "2")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["args"]["label"], row["args"]["n"]) for row in rows] == [("label", 0), ("label", 1)]


def test_methods_are_traced_with_this(tmp_path):
    program = build(tmp_path, CPP, "-g", "-O1", "-std=c++17")
    output = tmp_path / "out.json"
    done = kprobes("trace", "shop::Item::price", "--print", "tax, this.id, other.kind", "--format", "json",
                   "-o", str(output), "--", str(program))  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in output.read_text().splitlines()]
    assert (row["args"]["tax"], row["args"]["this.id"]) == (3, 1)


def test_debug_files_are_found_by_build_id_and_by_link(tmp_path):
    program = build(tmp_path, C, "-g", "-O1", "-Wl,--build-id=0x12345678abcdef")
    whole = ("trace", "visit", "-n", "1", "--format", "json", "-o", str(tmp_path / "out.json"), "--", str(program), "1")
    debug = tmp_path / "debug"
    held = debug / ".build-id" / "12" / "345678abcdef.debug"
    held.parent.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", str(program), str(held)], check=True)
    subprocess.run(["strip", "--strip-debug", str(program)], check=True)

    assert "label" not in _only_row(whole, tmp_path)
    # the plan of before must not be taken again: what is there now changes it
    assert _only_row(whole, tmp_path, KPROBES_DEBUG_DIR=str(debug))["label"] == "label"

    held.rename(tmp_path / "store.debug")
    assert "label" not in _only_row(whole, tmp_path, KPROBES_DEBUG_DIR=str(debug))
    linked = ["objcopy", f"--add-gnu-debuglink={tmp_path / 'store.debug'}", str(program)]
    subprocess.run(linked, check=True)
    assert _only_row(whole, tmp_path)["label"] == "label"


def _only_row(words: tuple[str, ...], home: Path, **environment: str) -> dict[str, object]:
    done = kprobes(*words, **environment)
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in (home / "out.json").read_text().splitlines()]
    return row["args"]


def test_a_parameter_without_debug_information_says_what_is_missing(tmp_path):
    program = build(tmp_path, C, "-O1")
    script = tmp_path / "script.py"
    script.write_text("from kprobes import emit, uprobe\n\n@uprobe('work')\ndef on(k):\n    emit(k=k)\n")
    done = kprobes("run", str(script), "--", str(program))
    assert done.returncode == 1
    assert "store has no debug information: install its debug package, or build it with -g" in done.stderr
    assert "^" in done.stderr


def test_altered_copies_are_not_taken_for_the_function(tmp_path):
    source = tmp_path / "copies.c"
    source.write_text(
        "#include <stdlib.h>\nvolatile int sink;\nstatic __attribute__((noinline)) int part(int unused, int *p)"
        " { sink++; return *p + 1; }\nint main(int c, char **v) { int x = c; return part(c, &x) == 0; }\n"
    )
    program = tmp_path / "copies"
    subprocess.run(["gcc", "-g", "-O2", "-o", str(program), str(source)], check=True)
    copy = next(name for name in _names(program) if name.startswith("part."))
    script = tmp_path / "script.py"
    script.write_text(f"from kprobes import emit, uprobe\n\n@uprobe('{copy}')\ndef on(p):\n    emit(p=p)\n")
    done = kprobes("run", str(script), "--", str(program))
    assert done.returncode == 1
    assert f"{copy} is a copy that the compiler has altered" in done.stderr


def _names(program: Path) -> list[str]:
    listed = subprocess.run(["nm", str(program)], capture_output=True, text=True, check=True).stdout
    return [line.split()[-1] for line in listed.splitlines()]


def test_damaged_debug_information_costs_types_not_probes(store, tmp_path):
    broken = tmp_path / "broken"
    data = bytearray(store.read_bytes())
    listed = subprocess.run(["readelf", "-SW", str(store)], capture_output=True, text=True, check=True).stdout
    (line,) = [one for one in listed.splitlines() if " .debug_abbrev" in one]
    offset = int(line.split("]")[1].split()[3], 16)
    data[offset : offset + 64] = b"\xff" * 64
    broken.write_bytes(data)
    broken.chmod(0o755)
    done = kprobes("count", "work", "--", str(broken), "2")
    assert done.returncode == 0, done.stderr
    done = kprobes("trace", "work", "--", str(broken), "2")
    assert done.returncode == 0, done.stderr
    script = tmp_path / "script.py"
    script.write_text("from kprobes import emit, uprobe\n\n@uprobe('work')\ndef on(k):\n    emit(k=k)\n")
    done = kprobes("run", str(script), "--", str(broken))
    assert done.returncode == 1
    assert "the debug information is malformed" in done.stderr or "debug information" in done.stderr
    assert "Traceback" not in done.stderr


LINES = (PROGRAMS / "store.c").read_text().splitlines()


@pytest.mark.parametrize("engine", ENGINES, ids=("process", "uprobe"))
def test_an_inlined_line_is_counted_at_each_of_its_copies(store, tmp_path, engine):
    number = next(n for n, line in enumerate(LINES, 1) if "return x * 2" in line)
    output = tmp_path / "out.json"
    words = ("count", f"@store.c:{number}", "--format", "json", "-o", str(output), *engine, "--", str(store), "3")
    done = kprobes(*words)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == 2
    assert {row["hits"] for row in rows} == {3}
    assert all(row["probe"].startswith(f"store@store.c:{number}(work+0x") for row in rows)


def test_parameters_can_be_taken_at_the_line_of_an_entry(store, tmp_path):
    number = next(n for n, line in enumerate(LINES, 1) if "int work(int k" in line) + 1
    script = tmp_path / "script.py"
    script.write_text(f"from kprobes import emit, uprobe\n\n@uprobe('@store.c:{number}')\ndef on(k):\n    emit(k=k)\n")
    output = tmp_path / "out.json"
    done = kprobes("run", str(script), "--format", "json", "-o", str(output), "--", str(store), "2")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["k"] for line in output.read_text().splitlines()] == [0, 1]


def test_what_was_only_inlined_is_refused_with_its_copies(store):
    done = kprobes("trace", "twice", "--", str(store))
    assert done.returncode == 1
    assert "it has no entry, the compiler inlined it at 2 places" in done.stderr
    assert "hint: probe where a copy begins: store:work" in done.stderr


def test_info_tells_prototype_line_and_copies(store):
    known = json.loads(kprobes("info", "--format", "json", f"{store}:work").stdout)
    assert known["prototype"] == "int work(int k, struct inner by_value, long last, ...)"
    number = next(n for n, line in enumerate(LINES, 1) if "int work(int k" in line) + 1
    assert known["source"].endswith(f"/store.c:{number}")
    shown = kprobes("info", f"{store}:twice").stdout
    assert "no: it has no entry, the compiler inlined it at 2 places" in shown
    shown = kprobes("info", "libc:malloc").stdout
    assert "libc.so.6:malloc" in shown


def test_a_cached_plan_reads_no_debug_information(store, tmp_path):
    words = ("trace", "visit", "-n", "1", "-o", str(tmp_path / "out"), "--", str(store), "1")
    assert kprobes(*words).returncode == 0
    tracer = f"import sys; from kprobes.cli.main import main; status = main({list(words)!r}); " \
             "print(status, [m for m in sys.modules if 'dwarf' in m or m == 'kprobes.planner.prototypes'])"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", tracer], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
