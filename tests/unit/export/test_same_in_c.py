"""Handlers in C come to what the interpreter comes to: made up at random, compiled for this machine and run here.

A header of our own stands for the kernel's; memory is that of the world of `agree`, some of whose pointers lead astray.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import subprocess
from pathlib import Path

import pytest
from agree.engines import own_memory
from agree.universe import BASE, MEMORY, PROTOTYPES, Types, make_hits

from export.written import Writer
from kprobes.cli.export_module import FRAME
from kprobes.compiler.front.compile import Surroundings, compile_handler
from kprobes.compiler.front.source import source_of
from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.world import DryWorld, Frame
from kprobes.errors import CompileError
from kprobes.events.aggregate import read_map
from kprobes.events.average import Average
from kprobes.export.cnaming import Names
from kprobes.export.handlers import probe_parts
from kprobes.export.module import module_source
from kprobes.export.unit import Shared
from kprobes.model import words
from kprobes.model.plan import Site
from kprobes.model.probe import HandlerSource, Probe
from kprobes.planner.group import Group

HANDLERS = int(os.environ.get("KPROBES_C_HANDLERS", "40"))
HITS = 8
PROTOTYPE = PROTOTYPES["wide"]
SHIM = Path(__file__).with_name("shim.h")
# What chance seldom makes: loops about their limit, strings in an `elif`, small numbers that don't fit an int together.
BY_HAND = {
    "turning": """\
from kprobes import emit

def turning(i, n, c, u, text, node):
    below = exact = above = 0
    while below < 1023:
        below += 1
    while exact < 1024 and exact < 1024 + (u & 1):
        exact += 1
    while above < 1025:
        above += 1
    emit(below=below, exact=exact, above=above)
""",
    "choosing": """\
from kprobes import emit, log

def choosing(i, n, c, u, text, node):
    kind = 0
    if u & 1:
        kind = 1
    elif node.text.string(16) == "bash":
        kind = 2
    elif node.peer.text.string(16) != "bash":
        kind = 3
    else:
        kind = 4
    large = (1 if u & 2 else 2) * 2000000000
    emit(kind=kind, large=large)
""",
}
WORDS = {name: value for name, value in vars(words).items() if not name.startswith("_")} | {
    name: getattr(words, name) for name in words.WORDS
}


class Places:
    def types_for(self, _kind):
        return Types()

    def variables_for(self, _kind, _sites):
        return None


def in_c(source: HandlerSource, number: int) -> str:
    probe = Probe("kprobe", ("wide",), source)
    group = Group(probe, (Site(0, "wide", symbol="wide"),), PROTOTYPE)
    shared = Shared(Names(FRAME), ("x.h",))
    parts = probe_parts(probe, [group], Places(), shared, {})
    code = module_source("m", parts, shared.finished()).code
    code = re.sub(r"(?m)^#include .*\n|^#define pr_fmt.*\n", "", code)
    return f"""#include "{SHIM}"
{code}
const char *run_{number}(struct pt_regs *regs, s64 *counts)
{{
	shim_used = 0;
	shim_text[0] = 0;
	{source.name}_pre(&sites[0].probe, regs);
	counts[0] = sites[0].hits.counter;
	counts[1] = sites[0].faults.counter;
	return shim_text;
}}
const char *report_{number}(void)
{{
	shim_used = 0;
	shim_text[0] = 0;
	m_exit();
	return shim_text;
}}
"""


def reported(lines: list[str]) -> dict[str, str]:
    """Return what the report of a module says of its maps, by their names."""
    return dict(one.split(": ", 1) for one in lines if " at " not in one and not one.startswith("assertion"))


def as_reported(name: str, value: object) -> dict[str, str]:
    """Return what a module should say of the map *name* that holds *value*."""
    if isinstance(value, list):
        return {f"{name}[{index}]": str(one) for index, one in enumerate(value) if one}
    if isinstance(value, Average):
        mean = int(abs(value.total) // max(value.count, 1)) * (-1 if value.total < 0 else 1)
        return {name: f"{value.count} values, total {value.total}, mean {mean}"}
    return {name: "no value" if value is None else str(value)}


def handler_in(file: Path, name: str, text: str) -> HandlerSource:
    """Write a file with a handler and the functions that it calls; return the handler."""
    file.write_text(text)
    found = dict(WORDS)
    exec(compile(text, str(file), "exec"), found)
    return source_of(found[name])


def told(handler, record: bytes) -> str:
    """Return the record of an event as a module writes it."""
    layout = handler.events[int.from_bytes(record[:4], "little")]
    words = []
    for one in layout.fields:
        raw = record[one.offset : one.offset + one.size]
        if one.kind == "str":
            text = raw.split(b"\0")[0].decode("latin-1")
            words.append(f'{one.name}="{text}"')
        elif one.kind == "hex":
            words.append(f"{one.name}=0x{int.from_bytes(raw, 'little'):x}")
        else:
            words.append(f"{one.name}={int.from_bytes(raw, 'little', signed=one.kind == 'int')}")
    return " ".join([f"{layout.name}:", *words]) + "\n"


REFUSED = re.compile("doesn't have it")
COMPILE_TIME = re.compile(
    "division by zero|does not fit|shift|too large|never|always|literal|may turn|unused|too nested|too many nested"
    "|has no index"
)


@pytest.fixture(scope="module")
def translated(tmp_path_factory):
    """Return handlers with their IR, and the library of what they are in C; most of what is made up is translated."""
    directory = tmp_path_factory.mktemp("in-c")
    found, files, refused, seed = [], [], 0, 0
    by_hand = list(BY_HAND.items())
    while len(found) < HANDLERS + len(BY_HAND):
        if by_hand:
            name, text = by_hand.pop()
        else:
            seed += 1
            name = f"h{seed}"
            text = Writer(seed).text(name)
        source = handler_in(directory / f"{name}.py", name, text)
        around = Surroundings(kind="kprobe", types=Types(), prototype=PROTOTYPE)
        try:
            made = compile_handler(source, around)
        except CompileError as error:
            if not COMPILE_TIME.search(str(error)):
                raise
            continue
        try:
            code = in_c(source, len(found))
        except CompileError as error:
            if not REFUSED.search(str(error)):
                raise
            refused += 1
            continue
        (directory / f"{len(found)}.c").write_text(code)
        files.append(f"{len(found)}.c")
        found.append((source, made))
    assert refused < len(found)
    flags = ["-O1", "-fwrapv", "-fno-strict-aliasing", "-w", "-Wformat", "-Werror=format", "-shared", "-fPIC"]
    done = subprocess.run(["gcc", *flags, "-o", "all.so", *files], cwd=directory, capture_output=True, text=True)
    assert not done.returncode, done.stderr[:3000]
    return found, ctypes.CDLL(str(directory / "all.so")), directory


def test_translated_handlers_agree_with_the_interpreter(translated):
    handlers, library, directory = translated
    own_memory()
    source = random.Random(1)
    memory = {("kernel", BASE): MEMORY, ("user", BASE): MEMORY}
    for number, (text, made) in enumerate(handlers):
        run = getattr(library, f"run_{number}")
        run.restype = ctypes.c_char_p
        counts = (ctypes.c_longlong * 2)()
        interpreter = Interpreter(made, DryWorld(memory, {}, {"comm": b"bash"}))
        for hit in make_hits(source.choice, lambda: source.getrandbits(64), HITS):
            world = interpreter.world
            world.records.clear()
            interpreter.enter(Frame(arguments=(*hit.arguments, *[0] * 6)))
            expected = "".join(told(made, record) for record in world.records)
            said = run((ctypes.c_ulong * 8)(*hit.arguments), counts).decode("latin-1")
            shown = f"{text.text}\n{[hex(word) for word in hit.arguments]}\n{directory}/{number}.c"
            assert said == expected, shown
            assert counts[1] == interpreter.counters.faults, shown
        report = getattr(library, f"report_{number}")
        report.restype = ctypes.c_char_p
        held: dict[str, str] = {}
        for layout in made.maps:
            if not layout.name.startswith("."):
                held |= as_reported(layout.name, read_map(interpreter.read_map(layout.name), layout))
        assert reported(report().decode().splitlines()) == held, f"{text.text}\n{directory}/{number}.c"
