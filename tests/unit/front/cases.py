"""The golden files of the front: cases of a source and what becomes of it.

A file holds cases one after the other:

    === name: kind place [unsafe] [ARCHITECTURE]
    def handler(...):
        ...
    ---
    the IR, or the error with its hint; in `warnings.golden` the warnings

`UPDATE_GOLDEN=1 pytest tests/unit/front` writes what comes out now; look at the difference before committing it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from front import helpers
from front.universe import NAMES, SCHED_SWITCH, Universe
from kprobes.arch.registers import TABLES
from kprobes.compiler.front.compile import Surroundings, compile_handler
from kprobes.compiler.ir.nodes import Handler
from kprobes.compiler.ir.show import show_handler
from kprobes.errors import CompileError
from kprobes.model.probe import HandlerSource

GOLDEN = Path(__file__).parents[2] / "golden" / "front"
_HEAD = re.compile(r"^=== (?P<name>[^:\n]+): (?P<around>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    name: str
    around: str
    source: str
    expected: str


def read_cases(path: Path) -> list[Case]:
    text = path.read_text()
    heads = list(_HEAD.finditer(text))
    cases = []
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        body = text[head.end() + 1 : following.start() if following else len(text)]
        source, _, expected = body.partition("\n---\n")
        cases.append(Case(head["name"], head["around"], source + "\n", expected.rstrip("\n") + "\n"))
    return cases


def write_cases(path: Path, results: list[tuple[Case, str]]) -> None:
    parts = [f"=== {case.name}: {case.around}\n{case.source.rstrip()}\n---\n{result}\n" for case, result in results]
    path.write_text("".join(parts))


def surroundings(around: str) -> Surroundings:
    kind, *rest = around.split()
    place = rest[0] if rest else ""
    return Surroundings(
        kind=kind,
        types=Universe(),
        prototype=Universe().function(place),
        at_entry="mid" not in rest,
        record=SCHED_SWITCH if kind == "tracepoint" else (),
        shards=4,
        unsafe="unsafe" in rest,
        on_fault="fault" in rest,
        arch=next((word for word in rest if word in TABLES), "x86_64"),
    )


def compile_text(text: str, around: str = "kprobe vfs_read", **names: object) -> Handler:
    everything = {**NAMES, **{key: value for key, value in vars(helpers).items() if callable(value)}, **names}
    name = re.search(r"def (\w+)", text)
    source = HandlerSource(name[1] if name else "h", text, "script.py", 10, 4, everything)
    return compile_handler(source, surroundings(around))


def outcome(case: Case) -> str:
    try:
        shown = show_handler(compile_text(case.source, case.around))
        return re.sub(r"\.assert\.[0-9a-f]{8}\.", ".assert.FILE.", shown)  # a hash of where this checkout lies
    except CompileError as error:
        shown = []
        for one in error.mistakes:
            one.others = ()
            shown.append(f"{one}\nhint: {one.hint}\n")
        return "\n".join(shown).replace(f"{Path(__file__).parent}/", "")


def warned(case: Case) -> str:
    """Return the warnings about a source that compiles."""
    found = compile_text(case.source, case.around).cautions
    shown = [
        f"{one.line}:{one.column + 1}: {one.what}\n{one.source}\n{' ' * one.column}^\nhint: {one.hint}\n"
        for one in found
    ]
    return "\n".join(shown) or "nothing\n"


def check(path: Path) -> None:
    """Compare each case of a golden file with what comes out, or write the file anew."""
    cases = read_cases(path)
    show = warned if path.stem.startswith("warnings") else outcome
    results = [(case, show(case)) for case in cases]
    if os.environ.get("UPDATE_GOLDEN"):
        write_cases(path, results)
    wrong = [
        f"{case.name}\n--- expected\n{case.expected}--- got\n{got}" for case, got in results if got != case.expected
    ]
    assert not wrong or os.environ.get("UPDATE_GOLDEN"), "\n\n".join(wrong)
    assert cases, path
