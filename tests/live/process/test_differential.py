"""The same handlers through the interpreter, in the process and by the kernel's uprobes give the same results."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from process_harness import redirected

from kprobes import Count, HashMap, Histogram, Kernel
from kprobes.compiler.front.compile import Surroundings, compile_handler
from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.world import DryWorld, Frame
from kprobes.engines.process.target import Process
from kprobes.events.aggregate import read_map
from kprobes.events.decode import Decoder
from kprobes.model import words
from kprobes.model.probe import HandlerSource, Probe
from kprobes.planner.places import NoTypes
from kprobes.session import Session, attach, attach_to, within_of

pytestmark = pytest.mark.process

ROUNDS = 600
MASK = (1 << 64) - 1
TEXTS = {1 << 16: b"", 2 << 16: b"a", 3 << 16: b"some longer text that is cut", 8: None, MASK - 63: None}
WORDS = {name: getattr(words, name) for name in dir(words) if not name.startswith("_")}

ENTRIES = [
    "def h():\n    emit(large=arg(1), small=arg(2) * 3, low=arg(3) // 7, text=string(arg(4), 16))\n",
    "def h():\n    if arg(2) % 3 == 1:\n        return\n    count.add(1)\n    sizes.add(arg(1) >> 3)\n",
    "def h():\n    n = 0\n    for i in range(min(arg(2), 12)):\n        n += i * arg(1)\n"
    "    emit(n=n, zero=arg(1) // (arg(2) % 2))\n",
    "def h():\n    by_text.add(arg(2), by=string(arg(4), 8))\n    last[arg(2)] = int(arg(3)) % 1000\n",
]  # fmt: skip
PAIR = (
    "def h():\n    large, small = arg(1), arg(2)\n    ret = yield\n"
    "    sizes.add(ret & 0xffff)\n    emit(ret=ret, large=large, small=small)\n"
)


def maps() -> dict[str, Any]:
    return {
        "count": Count("count"),
        "by_text": Count("by_text", by=str),
        "sizes": Histogram("sizes"),
        "last": HashMap("last", int, int),
    }


@dataclass
class Result:
    """What came of a run: events in their order, maps by name, faults."""

    events: list[tuple[Any, ...]]
    maps: dict[str, str]
    faults: int


def calls() -> list[tuple[int, ...]]:
    texts = list(TEXTS)
    return [
        ((i * 0x9E3779B97F4A7C15 & MASK) >> i % 64, i % 17, -i * i & MASK, texts[i % 5]) for i in range(ROUNDS)
    ]  # as differ.c has it


def shown(content: object) -> str:
    return str(sorted(content.items()) if type(content) is dict else content)


def interpreted(kind: str, text: str) -> Result:
    source = HandlerSource("h", text, names={**WORDS, **maps()})
    handler = compile_handler(source, Surroundings(kind=kind, types=NoTypes(), shards=1), {})
    memory = {("user", place): content.ljust(64, b"\0") for place, content in TEXTS.items() if content is not None}
    interpreter = Interpreter(handler, DryWorld(memory))
    for number, call in enumerate(calls()):
        frame = Frame(arguments=(*call, 0, 0), result=(call[0] ^ call[1] ^ call[2]) & MASK, call=number)
        interpreter.enter(frame)
        if handler.exit is not None:
            interpreter.leave(frame)
    events = Decoder(handler.events, ["look"]).decode(interpreter.world.records)
    found = {one.name: shown(read_map(interpreter.read_map(one.name), one)) for one in handler.maps}
    return Result([tuple(event.fields.values()) for event in events], found, interpreter.counters.faults)


def seen(session: Session, names: list[str]) -> Result:
    events = []
    while batch := session.poll(0.05):
        events += [tuple(event.fields.values()) for event in batch]
    (stats,) = session.stats
    assert (stats.hits, stats.missed, stats.lost) == (ROUNDS, 0, 0)
    return Result(events, {name: shown(session.read(name)) for name in names}, stats.faults)


@pytest.mark.parametrize(("kind", "text"), [*(("uprobe", one) for one in ENTRIES), ("uretprobe", PAIR)])
def test_interpreter_process_and_kernel_agree(build: Callable[..., Path], tmp_path: Path, kind: str, text: str) -> None:
    program = build("differ.c", "-g0")  # without the types, which the interpreter here doesn't have either
    expected = interpreted(kind, text)
    assert expected.events or expected.maps

    def probe() -> Probe:
        return Probe(kind, (f"{program}:look",), HandlerSource("h", text, names={**WORDS, **maps()}))

    with redirected(tmp_path / "out", tmp_path / "err"):
        engine = Process.spawn([str(program), str(ROUNDS)]).open()
        with attach_to(engine, probe(), within=within_of(engine)) as session:
            assert engine.wait(60)
            assert seen(session, list(expected.maps)) == expected
    with attach(probe(), to=Kernel()) as session:
        done = subprocess.run([program, str(ROUNDS)], capture_output=True, check=True)
        assert seen(session, list(expected.maps)) == expected
    assert done.stdout == (tmp_path / "out").read_bytes()
