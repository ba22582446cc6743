"""The rows of a table beside those that readelf interprets."""

from __future__ import annotations

import re
import struct
import subprocess
from bisect import bisect_right
from pathlib import Path

import pytest

from kprobes.model.shared import UNWIND_SIGNAL, UNWIND_STOP, UNWIND_UNKNOWN
from kprobes.symbols.elf import ElfFile
from kprobes.symbols.unwind import unwind_rows

LIBRARIES = ["/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libm.so.6"]
HEAD = re.compile(r"^[0-9a-f]+ [0-9a-f]+ [0-9a-f]+ FDE .*pc=([0-9a-f]+)\.\.([0-9a-f]+)")
SPECIAL = {UNWIND_STOP, UNWIND_SIGNAL, UNWIND_UNKNOWN}


def expected(path: str) -> dict[int, tuple[str, str, str]]:
    """Return (CFA, rbp, return address) in readelf's words by the address from which they hold."""
    words = ["readelf", "--debug-dump=frames-interp", path]
    text = subprocess.run(words, capture_output=True, text=True, check=False).stdout  # it warns, by its exit status
    found: dict[int, tuple[str, str, str]] = {}
    columns: list[str] = []
    inside = range(0)
    for line in text.splitlines():
        head = HEAD.match(line)
        if head:
            inside, columns = range(int(head[1], 16), int(head[2], 16)), []
        elif line.lstrip().startswith("LOC"):
            columns = line.split()
        elif not re.match(r"[0-9a-f]{16} ", line):
            columns = []
        elif columns:
            row = dict(zip(columns, line.split(), strict=False))
            if int(row["LOC"], 16) in inside:
                found[int(row["LOC"], 16)] = (row["CFA"], row.get("rbp", "u"), row["ra"])
    return found


def in_words(rule: int) -> tuple[str, str]:
    how, kept = rule & 0xFFFF, rule >> 16
    kept = kept - (1 << 16) if kept >> 15 else kept
    return f"{'rbp' if how & 1 else 'rsp'}+{(how >> 1) * 8}", f"c{kept * 8:+d}" if kept else "u"


@pytest.mark.parametrize("path", LIBRARIES)
def test_rows_say_what_readelf_says(path: str) -> None:
    rows = [(at & 0xFFFFFFFF, at >> 32) for (at,) in struct.iter_unpack("<Q", unwind_rows(path))]
    starts = [at for at, _ in rows]
    assert starts == sorted(set(starts))
    known = expected(str(Path(path).resolve()))
    assert len(known) > 2000
    unknown = 0
    with ElfFile(path) as elf:
        for address, (cfa, rbp, back) in known.items():
            rule = rows[bisect_right(starts, elf.offset_of(address)) - 1][1]
            if rule in SPECIAL:
                unknown += 1
                assert cfa == "exp" or back == "u" or not cfa.startswith(("rsp", "rbp"))
            else:
                assert (in_words(rule)) == (cfa, rbp.replace("s", "u"))
    assert unknown < len(known) // 20
