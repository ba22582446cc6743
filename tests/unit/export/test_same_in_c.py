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

from kprobes.compiler.front.compile import Surroundings, compile_handler
from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.world import DryWorld, Frame
from kprobes.errors import CompileError
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
WORDS = {name: value for name, value in vars(words).items() if not name.startswith("_")} | {
    name: getattr(words, name) for name in words.WORDS
}
FIELDS = ("id", "weight", "small", "debt", "port", "shift", "tag", "sign", "on", "mode", "whole", "half", "at.x",
          "at.y", "at.z", "prio[1]", "corners[0].y")  # fmt: skip
LITERALS = (0, 1, 2, 3, 7, 10, 63, 255, 4096, -1, -7, 1 << 31, (1 << 31) - 1, 1 << 40, (1 << 63) - 1, 1 << 63)


class Writer:
    """Writes one handler, statement by statement."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.known = ["i", "n", "c", "u"]
        self.nodes = ["node"]

    def text(self, name: str) -> str:
        self.lines.append(f"    other = {self.place()}")
        self.nodes.append("other")
        self.lines.append(f"    label = {self.random.choice(('node.text.string(16)', 'other.name', 'comm()'))}")
        for number in range(4):
            self.lines.append(f"    v{number} = {self.number(3)}")
            self.known.append(f"v{number}")
        for _ in range(self.random.randint(1, 5)):
            self.statement(1)
        values = ", ".join(f"f{number}={self.value()}" for number in range(4))
        self.lines.append(f"    emit({values}, v0=v0, v1=v1, v2=v2, v3=v3, label=label)")
        return f"def {name}(i, n, c, u, text, node):\n" + "\n".join(self.lines) + "\n"

    def value(self) -> str:
        return self.number(2) if self.random.random() < 0.7 else self.truth(2)

    def statement(self, depth: int) -> None:
        pad = "    " * depth
        kind = self.random.randrange(7 if depth < 3 else 2)
        name = f"v{self.random.randrange(4)}"
        if kind == 0:
            self.lines.append(f"{pad}{name} = {self.number(2)}")
        elif kind == 1:
            operator = self.random.choice(("+=", "-=", "*=", "&=", "|=", "^=", "//=", "%=", ">>="))
            plain = operator in ("//=", "%=", ">>=")
            amount = str(self.random.randint(1, 40)) if plain else self.number(1)
            self.lines.append(f"{pad}{name} {operator} {amount}")
        elif kind in (2, 3, 4):
            self.lines.append(f"{pad}if {self.truth(2)}:")
            self.statement(depth + 1)
            if kind == 3:
                self.lines.append(f"{pad}elif {self.truth(1)}:")
                self.statement(depth + 1)
            if kind >= 3:
                self.lines.append(f"{pad}else:")
                self.statement(depth + 1)
        elif kind == 5:
            self.lines.append(f"{pad}for t{depth} in range({self.random.randint(1, 6)}):")
            self.known.append(f"t{depth}")
            self.statement(depth + 1)
            self.known.remove(f"t{depth}")
            if self.random.random() < 0.3:
                self.lines.append(
                    f"{pad}    if {self.truth(1)}:\n{pad}        {self.random.choice(('break', 'continue'))}"
                )
        else:
            self.lines.append(f"{pad}w{depth} = {self.random.randint(0, 9)}")
            self.lines.append(f"{pad}while w{depth} > 0 and {self.truth(1)}:\n{pad}    w{depth} -= 1")
            self.statement(depth + 1)

    def place(self) -> str:
        found = self.random.choice(self.nodes)
        for _ in range(self.random.choice((0, 0, 1, 1, 2))):
            found += self.random.choice((".next", ".peer"))
        return found

    def number(self, depth: int) -> str:
        choice = self.random.random()
        if depth == 0 or choice < 0.25:
            return self.random.choice((*self.known, str(self.random.choice(LITERALS)), self.field()))
        if choice < 0.6:
            operator = self.random.choice("+-*&|^") if self.random.random() < 0.7 else self.random.choice(("//", "%"))
            return f"({self.number(depth - 1)} {operator} {self.number(depth - 1)})"
        if choice < 0.7:
            operator, count = self.random.choice(("<<", ">>")), self.random.choice((0, 1, 7, 63, "c"))
            return f"({self.number(depth - 1)} {operator} {count})"
        if choice < 0.8:
            return f"({self.random.choice('-~')}{self.number(depth - 1)})"
        if choice < 0.9:
            return f"({self.number(depth - 1)} if {self.truth(depth - 1)} else {self.number(depth - 1)})"
        inner = self.number(depth - 1)
        kind = self.random.choice(("u8", "s16", "int", "u64"))
        return self.random.choice(
            (f"int({inner})", f'cast({inner}, "{kind}")', f"abs(int({inner}))", f"min(int({inner}), c)")
        )

    def field(self) -> str:
        return f"{self.place()}.{self.random.choice(FIELDS)}"

    def truth(self, depth: int) -> str:
        choice = self.random.random()
        if depth == 0 or choice < 0.5:
            sign = self.random.choice(("==", "!=", "<", "<=", ">", ">="))
            return f"{self.number(min(depth, 1))} {sign} {self.number(min(depth, 1))}"
        if choice < 0.7:
            return f"({self.truth(depth - 1)} {self.random.choice(('and', 'or'))} {self.truth(depth - 1)})"
        if choice < 0.8:
            return f"not ({self.truth(depth - 1)})"
        return self.random.choice(
            (f"{self.place()} is not None", f"c in (1, 2, {self.random.choice(LITERALS)})",
             f"0 < {self.known[-1]} <= 9", 'label == "bash"', 'label.startswith("/e")', '"a" in label', "bool(label)"),
        )  # fmt: skip


class Places:
    def types_for(self, _kind):
        return Types()

    def variables_for(self, _kind, _sites):
        return None


def in_c(source: HandlerSource, number: int) -> str:
    probe = Probe("kprobe", ("wide",), source)
    group = Group(probe, (Site(0, "wide", symbol="wide"),), PROTOTYPE)
    parts = probe_parts(probe, [group], Places(), Shared(Names(), ("x.h",)), {})
    code = module_source("m", parts).code
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
"""


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
COMPILE_TIME = re.compile("division by zero|does not fit|shift|too large|never|always|literal|may turn|unused")


@pytest.fixture(scope="module")
def translated(tmp_path_factory):
    """Return handlers with their IR, and the library of what they are in C; most of what is made up is translated."""
    directory = tmp_path_factory.mktemp("in-c")
    found, files, refused, seed = [], [], 0, 0
    while len(found) < HANDLERS:
        seed += 1
        name = f"h{seed}"
        source = HandlerSource(name, Writer(seed).text(name), f"generated{seed}.py", names=WORDS)
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
