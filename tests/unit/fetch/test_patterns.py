"""Patterns of filters: the elements, the interpreter, native code and BPF match what the kernel's glob does."""

from __future__ import annotations

import ctypes
from random import Random

import pytest
from back.machine import own_world, run_bpf, run_interpreter
from native.native_machine import run_native
from seeds import SEED

from kprobes.compiler.ir.nodes import (
    BOOL,
    U64,
    Block,
    Convert,
    Emit,
    Function,
    Handler,
    MatchText,
    Place,
    ReadContext,
    ReadText,
    Return,
    Slot,
    Value,
)
from kprobes.compiler.ir.verify import verify
from kprobes.grammar.glob import elements_of, matches_pattern
from kprobes.model.layout import EventLayout, pack_fields

HERE = Place(1, 0)
PATTERNS = [
    "/etc/*d",
    "*a?b*c",
    "[a-c]x*[!0-9]",
    "?*?",
    "a*a*a*a",
    "*",
    "**",
    "\\*a*",
    "[]a]?",
    "x[",
    "a[b-",
    "",
    "[!a]*b",
]


def judging(patterns: list[str]) -> Handler:
    """Return a handler that reads a string and sends whether it matches each of *patterns*."""
    text = Slot("text", None, 24)
    address = Value(0, U64)
    nodes: list[object] = [ReadContext(HERE, address, "argument", 0), ReadText(HERE, text, address, 0, "user")]
    sent = []
    for number, pattern in enumerate(patterns):
        truth, word = Value(2 * number + 1, BOOL), Value(2 * number + 2, U64)
        nodes += [MatchText(HERE, truth, text, elements_of(pattern)), Convert(HERE, word, truth)]
        sent.append(word)
    fields, size = pack_fields([(f"p{number}", "uint", 8) for number in range(len(patterns))], 8)
    nodes.append(Emit(HERE, 0, tuple(sent)))
    blocks = (Block("start", tuple(nodes), Return(HERE)),)
    entry = Function("judging", "entry", (text,), blocks)
    return Handler("judging", entry, None, (), (EventLayout(0, "judging", size, fields),), (), "<test>", {1: ""})


def texts(dice: Random) -> list[str]:
    return ["", "a", "/etc/passwd", "aXbc", "axb", "]q", *["".join(dice.choices("abcx019*[", k=9)) for _ in range(30)]]


@pytest.mark.parametrize("run", [run_native, run_bpf], ids=["native", "bpf"])
def test_every_machine_matches_as_the_kernel_does(run) -> None:
    dice = Random(SEED)
    patterns = [*PATTERNS, *["".join(dice.choices("ab*?[]-!c", k=dice.randrange(1, 7))) for _ in range(9)]]
    patterns = [one for one in patterns if one[:1] not in "!0123456789"]
    handler = judging(patterns)
    verify(handler)
    buffers = [ctypes.create_string_buffer(one.encode(), 64) for one in texts(dice)]
    hits = [[ctypes.addressof(one)] for one in buffers]
    ours = run(handler, hits)
    assert ours.records == run_interpreter(handler, hits, own_world(buffers)).records
    for buffer, record in zip(buffers, ours.records, strict=True):
        found = [bool(int.from_bytes(record[at : at + 8], "little")) for at in range(8, len(record), 8)]
        wanted = [matches_pattern(one, buffer.value.decode()) for one in patterns]
        assert found == wanted, (
            buffer.value,
            [p for p, a, b in zip(patterns, found, wanted, strict=True) if a != b],
        )
