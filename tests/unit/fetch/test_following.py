"""What runs behind a definition: expressions of the handler language that know the fields by their names."""

from __future__ import annotations

import struct
from random import Random

import pytest

from fetch.hits import Hit, Region, fetched, interpreted, natively
from kprobes.compiler.fetch.following import lower_following
from kprobes.compiler.fetch.place import Surroundings
from kprobes.compiler.front.compile import Surroundings as Around
from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.nodes import Builtin, Handler, ReadText
from kprobes.compiler.ir.verify import verify
from kprobes.compiler.ir.world import DryWorld, Frame
from kprobes.errors import CompileError
from kprobes.grammar.events import parse
from kprobes.grammar.filter import fields_of, parse_filter
from kprobes.model.definition import Definition
from kprobes.model.mapspec import Count, Histogram, String
from kprobes.model.probe import AutoHandler
from kprobes.planner.auto import write_following
from kprobes.planner.places import NoTypes

TEXT, DATA = 0x1000, 0x2000
HIT = Hit(
    {"di": (1 << 64) - 100, "si": TEXT, "dx": DATA, "cx": 0x1234},
    {("user", TEXT): b"/etc/passwd".ljust(300, b"\0"), ("user", DATA): bytes(range(1, 65))},
)
LINE = "p:mine vfs_read fd=%di:s32 name=+0(%si):string n=%cx odd=+0(%dx):u16[3] c=+0(%si):char low=%di:u8"


def following(line: str, auto: AutoHandler, condition: str = "", kernel: str = "7.2", **options: bool) -> Handler:
    found = parse(line, kernel, "uprobe" if "/bin" in line else "kprobe")
    assert isinstance(found, Definition)
    wanted = parse_filter(condition, fields_of(found), kernel) if condition else None
    kinds = {(False, False): "kprobe", (False, True): "kretprobe", (True, False): "uprobe", (True, True): "uretprobe"}
    behind = Around(kinds[found.is_user, found.is_return], NoTypes())
    source = write_following(auto, found.event, [one.name for one in found.arguments])
    handler = lower_following(Surroundings(found, line, lambda _: 0, **options), wanted, source, behind, {})
    verify(handler)
    return handler


def traced(condition: str = "", prints: str = "", line: str = LINE, **options: object) -> dict[str, object] | None:
    auto = AutoHandler("trace", condition, tuple(prints.split("; ")) if prints else ())
    return fetched(following(line, auto, **options), HIT)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("fd == -100 and low == 156", True),
        ("fd > 0 or name.endswith('wd')", True),
        ("fd > 0 or name == '/etc'", False),
        ("odd[0] == 0x201 and odd[2] == 0x605", True),
        ("odd[0] + odd[1] > 0x10000", False),
        ("c == 47 and n << 4 == 0x12340", True),
        ("_ip != 0 and _pid == pid and _comm == comm", True),
        ("regs.cx == n", True),
    ],
)
def test_a_condition_knows_the_fields_by_their_names(condition: str, holds: bool) -> None:
    found = traced(condition)
    assert (found is not None) == holds
    assert found in (None, {
        "fd": -100, "name": "/etc/passwd", "n": 0x1234, "odd[0]": 0x201, "odd[1]": 0x403, "odd[2]": 0x605, "c": 47,
        "low": 156,
    })  # fmt: skip


def test_what_is_printed_stands_in_place_of_the_arguments() -> None:
    found = traced(prints="fd * 2; name; odd; odd[1]; regs.cx + 1; c")
    assert found == {
        "fd * 2": -200, "name": "/etc/passwd", "odd[0]": 0x201, "odd[1]": 0x403, "odd[2]": 0x605, "odd[1]_2": 0x403,
        "regs.cx + 1": 0x1235, "c": 47,
    }  # fmt: skip


def test_a_field_goes_before_the_word_that_is_called_so() -> None:
    line = "p:mine vfs_read emit=%di:s32 now=%cx stack=+0(%si):string comm=%cx:u8 regs=%dx retval=%di:s8"
    found = traced("emit < 0 and now == 0x1234 and stack[0] == '/'", "now; comm; regs; retval; emit", line=line)
    assert found == {"now": 0x1234, "comm": 0x34, "regs": DATA, "retval": -100, "emit": -100}


def test_the_filter_comes_first() -> None:
    auto = AutoHandler("trace", "fd < 0")
    assert fetched(following(LINE, auto, "n == 1"), HIT) is None
    assert fetched(following(LINE, auto, 'name ~ "/etc/*"'), HIT) is not None


def test_a_return_has_what_its_entry_knew_and_what_it_brings() -> None:
    line = "r:back vfs_read ret=$retval:s32 first=$arg1:s64 +0($arg2):string"
    handler = following(line, AutoHandler("trace", "ret < 0 and first == -100", ("ret", "retval", "first", "arg3")))
    hit = Hit(HIT.registers, HIT.memory, result=(1 << 64) - 2, returns={"di": 0, "si": 0})
    assert fetched(handler, hit) == {"ret": -2, "retval": -2, "first": -100, "arg3": "/etc/passwd"}


def test_calls_are_timed_from_the_entry_of_a_return_probes_function() -> None:
    values = Histogram("spent", by=int)
    line = "r:back vfs_read ret=$retval:s32 size=$arg3:u8"
    handler = following(line, AutoHandler("latency", "ret > 0", by="size", values=values), "ret > 2")
    world = DryWorld({}, {"now": 5, "cpu": 1, "pid": 70, "tid": 71}, {"comm": b"cat"})
    interpreter = Interpreter(handler, world)
    registers = dict.fromkeys(("ax", "ip", "sp", "di", "si", "flags"), 0)
    for result, size in ((3, 9), (1, 9), (7, 9), (7, 4)):
        interpreter.enter(Frame(registers={**registers, "dx": size}))
        interpreter.leave(Frame(registers={**registers, "dx": 0}, result=result))
    found = interpreter.read_map("spent")
    assert {int.from_bytes(key, "little"): sum(struct.unpack("<64Q", one[:512])) for key, one in found} == {9: 2, 4: 1}


def test_an_expression_is_sampled_by_a_string_that_is_fetched() -> None:
    values = Histogram("asked", by=String(64))
    handler = following(LINE, AutoHandler("sample", prints=("n // 2",), by="name", values=values), "fd < 0")
    interpreter = Interpreter(
        handler, DryWorld(HIT.memory, dict.fromkeys(("now", "cpu", "pid", "tid"), 1), {"comm": b"x"})
    )
    interpreter.enter(Frame(registers=HIT.registers))
    ((key, _),) = interpreter.read_map("asked")
    assert key.rstrip(b"\0") == b"/etc/passwd"


def test_hits_that_pass_are_counted_and_nothing_else_is_fetched() -> None:
    handler = following(LINE, AutoHandler("count", values=Count("passed0")), "fd < 0")
    assert handler.events == ()
    assert handler.entry is not None
    nodes = [node for block in handler.entry.blocks for node in block.nodes]
    assert [type(node).__name__ for node in nodes if "Map" in type(node).__name__] == ["MapAdd"]
    assert not any(isinstance(node, Builtin | ReadText) for node in nodes)


@pytest.mark.parametrize(
    ("auto", "what"),
    [
        (AutoHandler("trace", "nosuch > 3"), "nothing is called 'nosuch'"),
        (AutoHandler("trace", "names == ''"), "nothing is called 'names'"),
        (AutoHandler("trace", "retval > 0"), "retval"),
        (AutoHandler("trace", "fd >"), "this is no Python"),
        (AutoHandler("sample", prints=("name",), values=Histogram("a")), "string"),
    ],
)
def test_mistakes_are_shown_in_the_expression(auto: AutoHandler, what: str) -> None:
    with pytest.raises(CompileError, match=what) as caught:
        following(LINE, auto)
    assert caught.value.hint


CONDITIONS = (
    "a > b",
    "(a ^ b) & 1 == 0 or t.startswith('a')",
    "x[0] < x[1] and b != 0",
    "len(t) > 2",
    "c > 64 and a < 0",
)
PRINTS = ("a + b", "t", "x", "x[1] * 3", "c", "a if b > 0 else c", "t[1:4]", "_ip", "b >> 3")


def test_native_code_and_interpreter_agree_on_what_follows() -> None:
    dice, region = Random(7), Region(7)
    line = (
        "p:mine /bin/cat:0x1000 a=%di:s16 b=+8(%si):s32 c=+3(%si):u8 t=+0(%dx):string x=+16(%si):s16[2] +0(+8(%cx)):x64"
    )
    words = [region.middle, region.middle + 8, region.middle - 100, 0x10, (1 << 64) - 3, region.middle + 1]
    sent = 0
    for condition in CONDITIONS:
        auto = AutoHandler("trace", condition, tuple(dice.sample(PRINTS, 4)))
        handler = following(line, auto, strings=48)  # type: ignore[arg-type]
        for _ in range(6):
            given = dice.sample(words, 6)
            ours = natively(handler, region, given)
            assert ours == interpreted(handler, region, given), (condition, auto.prints, given)
            sent += ours[0] is not None
    assert sent > 3
