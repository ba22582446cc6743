"""Definitions that are written for places, and what is not left to a kernel."""

from __future__ import annotations

import pytest

from kprobes.errors import UnsupportedError
from kprobes.grammar.events import parse
from kprobes.model.ctype import Enum, Float, Function, Int, Parameter, Pointer, Void
from kprobes.model.definition import Definition
from kprobes.model.fetched import MOMENT, event_layout, kernels_layout
from kprobes.model.plan import Site
from kprobes.model.probe import AutoHandler, FetchHandler, Probe
from kprobes.planner.group import Group
from kprobes.planner.tracefs import _check_filter, goes_by_tracefs, harmless, written

REGISTERS = ("di", "si", "dx", "cx", "r8", "r9")
INT, LONG, BYTE = Int("int", 4, True), Int("unsigned long", 8, False), Int("char", 1, True, "char")
TEXT = Pointer(BYTE, const=True)
OPEN = Function("f", (Parameter("fd", INT), Parameter("name", TEXT), Parameter("size", LONG)), INT)


def group(kind: str, prototype: Function | None, *sites: Site, maxactive: int = 0) -> Group:
    return Group(Probe(kind, ("f",), None, maxactive), sites, prototype)


def text(kind: str, site: Site, prototype: Function | None = OPEN, *, shows: bool = True, **options: int) -> str:
    return written(group(kind, prototype, site), site, REGISTERS if shows else (), **options)


F = Site(0, "f", "f")


def test_an_entry_fetches_the_parameters_by_their_types() -> None:
    assert text("kprobe", F) == "p:f f fd=%di:s32 name=+0(%si):string size=%dx:u64"
    assert text("kprobe", F, shows=False) == "p:f f"
    assert text("kprobe", F, None) == "p:f f"


def test_a_return_fetches_the_result_and_may_have_more_room() -> None:
    assert text("kretprobe", F) == "r:f f retval=$retval:s32"
    assert text("kretprobe", F, room=64) == "r64:f f retval=$retval:s32"
    assert text("kretprobe", F, Function("f", (), Void())) == "r:f f"
    assert text("kretprobe", F, Function("f", (), TEXT)) == "r:f f retval=$retval:x64"
    assert text("kretprobe", F, None) == "r:f f retval=$retval"
    asked = group("kretprobe", OPEN, F, maxactive=7)
    assert written(asked, F, REGISTERS, room=64) == "r7:f f retval=$retval:s32"


def test_an_enumeration_has_its_sign() -> None:
    signed, unsigned = Enum("e", 4, True, 1), Enum("u", 4, False, 2)
    both = Function("f", (Parameter("a", signed), Parameter("b", unsigned)), signed)
    assert text("kprobe", F, both) == "p:f f a=%di:s32 b=%si:u32"
    assert text("kretprobe", F, both) == "r:f f retval=$retval:s32"


def test_parameters_behind_one_that_is_passed_elsewhere_are_left_out() -> None:
    whole = Function("f", (Parameter("a", INT), Parameter("s", Float("double", 8)), Parameter("b", INT)), Void())
    assert text("kprobe", F, whole) == "p:f f a=%di:s32"


@pytest.mark.parametrize(
    ("site", "shown"),
    [
        (Site(0, "f+0x10", "f", 16), "p:f_0x10 f+0x10"),
        (Site(0, "f", "f.isra.0"), "p:f_isra_0 f.isra.0"),
        (Site(0, "ext4:f", "f", module="ext4"), "p:f ext4:f"),
        (Site(0, "0xffffffff81000000", address=0xFFFFFFFF81000000), "p:_0xffffffff81000000 0xffffffff81000000"),
        (Site(0, "libc.so.6:f", "f", address=0x620, path="/lib/libc.so.6"), "p:f /lib/libc.so.6:0x620"),
    ],
)
def test_each_kind_of_place_is_spelled_as_a_kernel_takes_it(site: Site, shown: str) -> None:
    kind = "uprobe" if site.path else "kprobe"
    found = text(kind, site, shows=False)
    assert found == shown
    assert isinstance(parse(found, "6.12", kind), Definition)


def test_a_symbol_as_a_string_is_asked_for_as_an_address() -> None:
    definition = parse("p:mine vfs_read where=%ip:symstr size=%dx", "6.12")
    assert isinstance(definition, Definition)
    assert harmless(definition).text == "p:kprobes/mine vfs_read where=%ip:symbol size=%dx"
    layout = kernels_layout(event_layout(definition))
    assert [(one.name, one.kind, one.size) for one in layout.fields[-4:]] == [
        ("where", "symstr", 8), ("size", "hex", 8), (MOMENT[0], "uint", 1), (MOMENT[1], "uint", 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("probe", "goes"),
    [
        (Probe("kprobe", ("f",)), True),
        (Probe("kprobe", ("f",), FetchHandler("p f")), True),
        (Probe("kprobe", ("f",), FetchHandler("p f", "size > 3", counts=True, then=AutoHandler("count"))), True),
        (Probe("kprobe", ("f",), FetchHandler("p f", then=AutoHandler("sample", prints=("size",)))), False),
        (Probe("kprobe", ("f",), AutoHandler("trace")), True),
        (Probe("kprobe", ("f",), AutoHandler("trace", "size > 3")), False),
        (Probe("kprobe", ("f",), AutoHandler("trace", prints=("size",))), False),
        (Probe("kprobe", ("f",), AutoHandler("trace", stack=True)), False),
        (Probe("kretprobe", ("f",), AutoHandler("latency")), False),
        (Probe("tracepoint", ("a:b",)), False),
        (Probe("uprobe", ("f",), on_fault=True), False),
        (Probe("uprobe", ("f",), record=True), False),
    ],
)
def test_tracefs_takes_what_needs_no_program(probe: Probe, goes: bool) -> None:
    assert goes_by_tracefs(probe) is goes


@pytest.mark.parametrize(
    ("condition", "refused"),
    [
        ('s == "x"', True),
        ('n == 1 && s != "x"', True),
        ("n == 1", False),
        ("comm == 's'", False),
        ('comm ~ "*s "', False),
    ],
)
def test_a_filter_is_refused_for_a_name_that_it_asks_about_not_for_a_text(condition: str, refused: bool) -> None:
    found = parse("p:x vfs_read n=%di s=%ip:symstr", "6.12")
    assert isinstance(found, Definition)
    if not refused:
        _check_filter(condition, found)
        return
    with pytest.raises(UnsupportedError, match="a filter can't look at s"):
        _check_filter(condition, found)
