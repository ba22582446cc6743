"""Types that a handler names itself, in a program without type information: annotations, struct classes, variables."""

from __future__ import annotations

import enum
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_fault_handlers import probing
from test_native import all_events

import kprobes
from kprobes import bits, char, cstr, i32, struct, u8, u16, u32, u64, union
from kprobes.model.probe import HandlerSource, Probe

pytestmark = pytest.mark.process


class Color(enum.IntEnum):
    RED = 0
    GREEN = 2
    BLUE = 3


@struct
class Inner:
    code: u16
    bytes: u8[4]


@union
class Value:
    number: u64


@struct
class Header:
    magic: u32
    length: u16
    name: char[6]
    next: "Header *"
    path: cstr
    inner: Inner
    kind: bits(u32, 3)
    level: bits(i32, 5)
    value: Value


NAMES = {
    **{name: getattr(kprobes, name) for name in ("cstr", "i32", "i64", "u8", "u16", "u32", "u64")},
    "Color": Color,
    "Inner": Inner,
    "Header": Header,
}


def probe(kind: str, place: str, text: str) -> Probe:
    return Probe(kind, (place,), HandlerSource("h", text, names=NAMES))


def test_annotated_handlers_read_a_program_that_was_built_without_debugging(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    program = build("typed.c", "-g0", "-O1")
    entry = probe("uprobe", f"{program}:handle", """def h(header: Header, path: cstr, color: Color, index: i32):
    emit(path, color, index, header.length, header.name, header.next.name, header.path, header.kind, header.level,
         header.value.number, header.next.next.magic, byte=header.inner.bytes[index])
""")  # fmt: skip
    leave = probe("uretprobe", f"{program}:handle", """def h(header: Header) -> i32:
    before = var("counter", "int")
    ret = yield
    emit(ret, before, after=var("counter", u32), hidden=var("hidden", i64), last=var("last", Header).inner.code)
""")  # fmt: skip
    whole = probe("uprobe", f"{program}:handle", "def h(header: Header, a: u64, b: u64, index: u8):\n"
                  "    if index == 1:\n        emit(**header.next)\n        emit(*args)\n")  # fmt: skip
    with probing(program, tmp_path, entry, leave, whole, arguments=()) as session:
        events = all_events(session)
        stats = session.stats
    assert [one.hits for one in stats] == [6, 6, 6]
    # a null pointer at the end of the chain in each; from the fifth call on the index is beyond the array as well
    assert [one.faults for one in stats] == [6, 0, 0]
    entries = [one for one in events if "color" in one.fields]
    assert [str(one.color) for one in entries[:4]] == ["RED", "1", "GREEN", "BLUE"]
    assert [one.byte for one in entries] == [5, 6, 7, 8, 0, 0]
    path = str(program)[:63]
    assert [one.path for one in entries] == ["/a/path", path] * 3
    assert list(entries[0])[3:11] == [300, "first", "last", path, 6, -1, 1 << 40, 0]
    returns = [one for one in events if "ret" in one.fields]
    assert [(one.ret, one.before, one.after) for one in returns] == [(2 * i - 1, i + 5, i + 6) for i in range(6)]
    assert {(one.hidden, one.last) for one in returns} == {(-7, 9)}
    members = next(one for one in events if "magic" in one.fields)
    assert (members.magic, members["name"], members["inner.bytes[3]"]) == (77, "last", 4)
    assert [list(one.fields) for one in events if "a" in one.fields] == [["header", "a", "b", "index"]]


def test_a_traced_program_shows_its_arguments_at_once_and_enums_by_name(build: Callable[..., Path]) -> None:
    program = build("typed.c", "-O1")
    command = [sys.executable, "-m", "kprobes.cli.main", "trace", f"{program}:handle", "--format", "json",
               "--print", "args(), color"]  # fmt: skip
    done = subprocess.run([*command, "--", str(program)], capture_output=True, text=True, check=False)
    rows = [json.loads(line)["args"] for line in done.stderr.splitlines() if line.startswith('{"time')]
    assert len(rows) == 6, done.stderr
    assert [row.get("color_name") for row in rows[:4]] == ["RED", None, "GREEN", "BLUE"]
    assert rows[2]["color"] == 2
    assert rows[0]["path"] == "/a/path"
