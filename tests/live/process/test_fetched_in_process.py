"""Definitions in a process: our own engine, the kernel's uprobes by BPF, and the commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kprobes.symbols.elf import ElfFile
from kprobes.symbols.elf_symbols import ElfSymbols

KPROBES = [sys.executable, "-m", "kprobes.cli.main"]
ENGINES = ("process", "uprobe")
LOADED = """
import sys
from kprobes.cli.main import main
main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def program(build: Callable[..., Path]) -> Path:
    return build("fetched.c")


@pytest.fixture(scope="module")
def place(program: Path) -> str:
    """Return where `work` begins, as definitions say it."""
    return f"{program}:{offset_of(program, 'work'):#x}"


def offset_of(program: Path, name: str) -> int:
    with ElfFile(str(program)) as elf:
        return elf.offset_of(ElfSymbols(elf).lookup(name)[0].address) or 0


def run(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*KPROBES, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done


def rows(*words: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in run("trace", "--format=json", "-o", "/dev/stdout", *words).stdout.splitlines()]


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_fetch_what_the_program_has(engine: str, program: Path, place: str) -> None:
    line = (
        f"p:entry {place} kind=+0(%di):b3@0/32 flags=+0(%di):b7@3/32 name=+2(%di):string texts=+24(%di):string[3] "
        "next=+2(+48(%di)):string sizes=+56(%di):u16[4] text=+0(%si):string n=%dx:s64 low=%dx:s8 c=+0(%si):char $comm "
        f'global=@+{data_offset(program):#x}:s32 lit=\\"lit" imm=\\-5:s16'
    )
    back = f"r:back {place} ret=$retval:s32 at=+0(%ip):u8"
    found = rows("--engine", engine, line, back, "--", str(program), "2")
    entries = [row["args"] for row in found if row["event"] == "entry"]
    assert entries[0] == {
        "kind": 3, "flags": 77, "name": "first", "texts": ["alpha", "beta", "gamma"], "next": "second",
        "sizes": [1, 2, 3, 4], "text": "hello", "n": 0, "low": 0, "c": "h", "arg11": entries[0]["arg11"],
        "global": 4242, "lit": "lit", "imm": -5,
    }  # fmt: skip
    assert [one["text"] for one in entries] == ["hello", "x", "hello", None]
    assert entries[3]["texts"] == ["x", None, "z"]
    assert (entries[3]["next"], entries[3]["n"], entries[3]["low"], entries[3]["c"]) == (None, -1, -1, "\0")
    assert [row["args"]["ret"] for row in found if row["event"] == "back"] == [107, 125, 109, 3]
    assert all(row["ret"] == other["ret"] for row, other in zip(found[1::4], found[5::4], strict=False))


def data_offset(program: Path) -> int:
    """Return where `global` lies, seen from the code."""
    with ElfFile(str(program)) as elf:
        return ElfSymbols(elf).variables("global")[0].address


@pytest.mark.parametrize("engine", ENGINES)
def test_a_filter_lets_pass_what_it_says(engine: str, program: Path, place: str) -> None:
    line = f"p:entry {place} text=+0(%si):string n=%dx:s32"
    found = rows("--engine", engine, line, "--filter", 'n > 1 && text ~ "h?l*o"', "--", str(program), "5")
    assert [row["args"] for row in found] == [{"text": "hello", "n": number} for number in (2, 3, 4)]


@pytest.mark.parametrize("engine", ENGINES)
def test_definitions_of_one_place_are_counted_by_the_names_of_their_events(
    engine: str, program: Path, place: str
) -> None:
    words = ["count", "--engine", engine, f"p:mine/opened {place}", f"r:back {place}", "--", str(program), "4"]
    told = [
        json.loads(row) for row in run(*words[:1], "--format=json", "-o", "/dev/stdout", *words[1:]).stdout.splitlines()
    ]
    assert {row["probe"]: row["hits"] for row in told} == {"opened": 8, "back": 8}
    table = run(*words[:1], "-o", "/dev/stdout", *words[1:]).stdout
    assert "opened" in table
    assert "back" in table
    assert place not in table


def test_definitions_are_counted_sampled_and_stand_in_scripts(program: Path, place: str, tmp_path: Path) -> None:
    counted = run("count", "--format=json", f"p {place}", f"r:back {place}", "--", str(program), "4").stderr
    assert [json.loads(row)["hits"] for row in counted.splitlines()[:2]] == [8, 8]
    assert json.loads(counted.splitlines()[1])["probe"] == "back"
    line = f"p:entry {place} n=%dx:s32"
    sampled = run("hist", "--format=json", line, "n", "--filter", "n >= 0", "--", str(program), "4").stderr
    assert sum(bucket[2] for bucket in json.loads(sampled.splitlines()[0])["buckets"]) == 5
    script = tmp_path / "script.py"
    script.write_text(f"from kprobes import definition\n\nprobes = [definition({line!r}, filter='n == 3')]\n")
    told = run("run", "--format=json", str(script), "--", str(program), "4").stderr
    assert json.loads(told.splitlines()[0])["args"] == {"n": 3}


def test_a_definition_that_is_cached_loads_no_grammar_and_no_compiler(program: Path, place: str) -> None:
    words = [sys.executable, "-c", LOADED, "trace", f"p:entry {place} t=+0(%si):string", "--", str(program), "1"]
    for _ in range(2):
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert "entry" in done.stderr
    loaded = done.stderr.split()
    assert "kprobes.planner.cache" in loaded
    assert [name for name in loaded if name.startswith(("kprobes.grammar", "kprobes.compiler", "llvmlite"))] == []


def test_refusals_show_the_kernels_words_and_a_caret(program: Path, place: str) -> None:
    told = run("trace", f"p:entry {place} a=%rdi", "--", str(program), status=1).stderr.splitlines()
    assert told[0] == "error: Invalid register name"
    assert told[1].index("%rdi") == told[2].index("^")
    told = run("trace", f"p:entry {place} a=%di", "--filter", "b > 1", "--", str(program), status=1).stderr
    assert "Field not found" in told
    told = run("trace", f"p:entry {place} a=%di", "--if", "b > 1", "--", str(program), status=1).stderr
    assert "nothing is called 'b' here" in told
    told = run("latency", f"p:entry {place} a=%di", "--", str(program), status=2).stderr
    assert "define the return" in told


@pytest.mark.parametrize("engine", ENGINES)
def test_expressions_beside_a_definition_know_what_it_fetches(engine: str, program: Path, place: str) -> None:
    line = f"p:entry {place} text=+0(%si):string n=%dx:s32 sizes=+56(%di):u16[4]"
    words = ["--engine", engine, line, "--if", "n > 1 and text.endswith('lo') and sizes[2] == 3"]
    assert [row["args"] for row in rows(*words, "--", str(program), "4")] == [
        {"text": "hello", "n": number, "sizes": [1, 2, 3, 4]} for number in (2, 3)
    ]
    (found,) = rows(*words, "--print", "n * 10,text[1:3],sizes,regs.dx", "--", str(program), "3")
    assert found["args"] == {"n * 10": 20, "text[1:3]": "el", "sizes": [1, 2, 3, 4], "regs.dx": 2}
    assert (found["event"], found["comm"]) == ("entry", program.name[:15])
    back = rows(
        "--engine", engine, f"r:back {place} ret=$retval:s32", "--if", "ret == retval > 108", "--", str(program), "2"
    )
    assert [row["args"] for row in back] == [{"ret": 125}, {"ret": 109}]


def test_the_stack_stands_under_each_line_of_a_definition(program: Path, place: str) -> None:
    words = [
        f"p:entry {place} n=%dx:s32",
        "--stack",
        "--filter",
        "n == 2",
        "-o",
        "/dev/stdout",
        "--",
        str(program),
        "3",
    ]
    told = run("trace", *words).stdout.splitlines()
    assert told[1].split()[-2:] == ["entry", "n=2"]
    assert [line.split("+")[0].strip() for line in told[2:4]] == ["work", "main"]
    (found,) = rows(*words)
    assert found["args"] == {"n": 2}
    assert [name.split("+")[0] for name in found["stack"][:2]] == ["work", "main"]  # type: ignore[index]


@pytest.mark.parametrize("engine", [*ENGINES, "tracefs"])
def test_hits_that_pass_a_filter_are_counted_and_unnamed_events_have_names(
    engine: str, program: Path, place: str
) -> None:
    words = ["--engine", engine, f"p {place} n=%dx:s32", f"p:mine {place} n=%dx:s16", "--filter", "n > 1"]
    done = run("count", "--format=json", "-o", "/dev/stdout", *words, "--", str(program), "5")
    stem = re.match(r"\w*", program.name)
    assert stem
    name = f"p_{stem[0]}_{place.rpartition(':')[2]}"
    assert {row["probe"]: row["hits"] for row in map(json.loads, done.stdout.splitlines())} == {name: 3, "mine": 3}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_returns_definition_tells_how_long_calls_take(engine: str, program: Path, place: str) -> None:
    words = ["--engine", engine, f"r:back {place} ret=$retval:s32", "--by", "ret // 100", "--filter", "ret > 0"]
    done = run("latency", "--format=json", "-o", "/dev/stdout", *words, "--unit", "ns", "--", str(program), "4")
    found = [json.loads(row) for row in done.stdout.splitlines()]
    assert {row["map"] for row in found} == {"back"}
    assert {row["key"]: sum(bucket[2] for bucket in row["buckets"]) for row in found} == {0: 2, 1: 5}
    line = f"p:entry {place} text=+0(%si):string n=%dx:s32"
    done = run(
        "hist",
        "--format=json",
        "-o",
        "/dev/stdout",
        "--engine",
        engine,
        line,
        "n // 2",
        "--by",
        "text",
        "--if",
        "n >= 0",
        "--",
        str(program),
        "3",
    )
    assert {json.loads(row)["key"] for row in done.stdout.splitlines()} == {"hello", "x"}
