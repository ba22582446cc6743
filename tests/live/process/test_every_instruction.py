"""Handlers before and behind each instruction of functions of a real library: the same output, and nothing missed."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from test_native import WORDS, redirected

from kprobes import Count, Process, attach
from kprobes.arch.x86_64.behind import refusal_behind
from kprobes.arch.x86_64.decode import decode
from kprobes.model.probe import HandlerSource, Probe
from kprobes.symbols.elf import ElfFile
from kprobes.symbols.elf_symbols import ElfSymbols

pytestmark = pytest.mark.process
LIBRARY = os.path.realpath("/usr/lib/x86_64-linux-gnu/libsqlite3.so.0")
SQL = """create table t(a, b);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 50)
insert into t select x, x * x || 'abc' from c;
select sum(a), count(b), max(b), group_concat(a % 7) from t where b like '%1%';
create index i on t(b); select * from t order by b desc limit 5; select printf('%d %5.2f %s', 3, 2.5, 'x');
"""
SEED, FUNCTIONS = 7, 12
PLACES = 500


def places() -> list[str]:
    """Return instructions behind which a handler can run, of functions that every query uses and of others."""
    content = Path(LIBRARY).read_bytes()
    with ElfFile(LIBRARY) as elf:
        symbols = {symbol.name: symbol for symbol in ElfSymbols(elf, "").functions if 0 < symbol.size < 600}
        wanted = ["sqlite3Malloc", "sqlite3_step", "sqlite3BtreeNext", "sqlite3HashInsert"]
        wanted += random.Random(SEED).sample(sorted(symbols), FUNCTIONS)
        found = []
        for name in dict.fromkeys(wanted):
            if name not in symbols:
                continue
            at = elf.offset_of(symbols[name].address)
            assert at is not None
            items = decode(content[at : at + symbols[name].size], at)
            good = [item for item in items if not item.refusal and not refusal_behind(item)]
            found += [f"libsqlite3.so.0:{name}+{item.address - at:#x}" for item in good]
    return found[:PLACES]


@pytest.mark.parametrize(
    "text",
    [
        "def h():\n    before = regs.sp\n    yield\n    seen.add(1 + (before - regs.sp) * 0)\n",
        "def h():\n    if regs.ip == 0:\n        skip()\n    seen.add(1 + user_stack() * 0)\n",
    ],
    ids=["behind", "skip and stack"],
)
def test_a_library_runs_the_same_with_handlers_around_its_instructions(tmp_path: Path, text: str) -> None:
    seen = Count("seen")
    probe = Probe("uprobe", tuple(places()), HandlerSource("h", text, names={**WORDS, "seen": seen}), unsafe=True)
    command = ["sqlite3", ":memory:", SQL]
    plain = subprocess.run(command, capture_output=True, check=True).stdout
    with redirected(tmp_path / "out", tmp_path / "err"), attach(probe, to=Process.spawn(command)) as session:
        assert session.engine.wait(60)  # type: ignore[attr-defined]
        hits = sum(one.hits for one in session.stats)
        assert {one.missed for one in session.stats} == {0}
        assert session[seen] == hits
    assert (tmp_path / "out").read_bytes() == plain
    assert hits > 1000
