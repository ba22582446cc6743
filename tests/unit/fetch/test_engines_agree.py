"""Generated definitions on generated memory: native code and the interpreter send the same."""

from __future__ import annotations

from random import Random

from seeds import SEED

from fetch.hits import Region, compiled, interpreted, natively
from kprobes.errors import DefinitionError

COUNT = 60
REGISTERS = ("di", "si", "dx", "cx", "r8", "r9")
TYPES = (
    "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "x8", "x16", "x32", "x64", "char", "b3@2/8", "b9@7/16",
    "b31@1/32", "b40@13/64", "string", "ustring",
)  # fmt: skip


def term(dice: Random, depth: int) -> str:
    if not depth:
        return dice.choice(
            [f"%{dice.choice(REGISTERS)}"] * 4 + ["$stack", f"$stack{dice.randrange(20)}", "\\0x12345", "\\-7"]
        )
    space = dice.choice(["", "", "u"])
    return f"{dice.choice('+-')}{space}{dice.randrange(0, 64)}({term(dice, depth - 1)})"


def argument(dice: Random) -> str:
    if dice.random() < 0.05:
        return dice.choice(["$comm", '\\"lit"'])
    depth = dice.choice([0, 1, 1, 1, 2, 2, 3, 5])
    kind = dice.choice(TYPES)
    if "string" in kind:
        depth = max(depth, 1)
    array = dice.choice(["", "", "", "[1]", "[3]"]) if depth else ""
    return f"{term(dice, depth)}:{kind}{array}"


def test_native_code_and_interpreter_fetch_the_same() -> None:
    dice = Random(SEED)
    region = Region(SEED)
    words = [region.middle, region.middle + 8, region.middle - 100, 0x10, (1 << 64) - 3, region.middle + 1]
    compared = 0
    for _ in range(COUNT):
        line = "p:mine /bin/cat:0x1000 " + " ".join(argument(dice) for _ in range(dice.randrange(1, 9)))
        try:
            handler = compiled(line, "uprobe", strings=48)
        except DefinitionError:
            continue
        assert natively(handler, region, words) == interpreted(handler, region, words), line
        compared += 1
    assert compared > COUNT // 4
