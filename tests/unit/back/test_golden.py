"""What typical handlers become, instruction by instruction.

`UPDATE_GOLDEN=1 pytest tests/unit/back` writes what comes out now; look at the difference before committing it. Another
version of LLVM may choose other instructions, so the listings hold for one.
"""

import os
import re
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from front.cases import compile_text

from kprobes.compiler.back.bpf import BpfTarget, lower
from kprobes.compiler.back.disassemble import disassemble
from kprobes.model.mapspec import Count, Histogram
from kprobes.model.plan import RETURN_WAYS

GOLDEN = Path(__file__).parents[2] / "golden" / "back" / "programs.golden"
LLVM = 22
_HEAD = re.compile(r"^=== (?P<name>[^:\n]+): (?P<around>[^|\n]+) \| (?P<ways>.*)$", re.MULTILINE)


def read_cases():
    text = GOLDEN.read_text()
    heads = list(_HEAD.finditer(text))
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        source, _, expected = text[head.end() + 1 : following.start() if following else len(text)].partition("\n---\n")
        yield head, source, expected


def listing(around, ways, source):
    maps = {
        "calls": Count("calls", by=str),
        "total": Count("total"),
        "sizes": Histogram("sizes"),
        "usecs": Histogram("usecs", by=str),
    }
    made = compile_text(source, around, **maps)
    words = ways.split()
    names = [word for word in words if word not in ("hash", "cookie")]
    target = BpfTarget(
        entry_way=next((name for name in names if name not in RETURN_WAYS), ""),
        exit_way=next((name for name in names if name in RETURN_WAYS), ""),
        sites=4 if "cookie" in words else 1,
        site=None if "cookie" in words else 0,
        cookie="cookie",
        shards=4,
        argument_count=4,
        pointers=frozenset({0}),
        compare_exchange="hash" not in words,
    )
    lines = []
    for program in lower(made, target).programs:
        at = {line.index: f"; {line.text.strip()}" for line in program.lines}
        lines.append(f"{program.way}: {len(program.instructions) // 8} slots")
        for line in disassemble(program):
            index = int(line.split(":")[0])
            lines += [at[index]] if index in at else []
            lines.append(f"  {line}")
    return "\n".join(lines) + "\n"


@pytest.mark.skipif(llvm.llvm_version_info[0] != LLVM, reason=f"the listings are those of LLVM {LLVM}")
def test_programs_are_the_golden_ones():
    results = [(head, source, expected, listing(head["around"], head["ways"], source))
               for head, source, expected in read_cases()]  # fmt: skip
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text("".join(f"{head[0]}\n{source}\n---\n{got}\n" for head, source, _, got in results))
        return
    for head, _, expected, got in results:
        assert got == expected.rstrip("\n") + "\n", head["name"]
    assert len(results) == 8


def test_a_probe_that_only_counts_takes_ten_slots():
    assert listing("kprobe vfs_read", "fentry", "def h():\n    return\n").startswith("fentry: 10 slots\n")
