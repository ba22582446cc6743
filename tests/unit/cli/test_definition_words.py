"""Definitions on the command line and in Python: what is one, what becomes of it, how its events are shown."""

from __future__ import annotations

import struct

import pytest

from kprobes.cli.definitions import (
    add_definition_options,
    check_filter,
    event_name,
    is_definition,
    json_arguments,
    show_arguments,
    string_room,
    values_of,
)
from kprobes.cli.parser import Parser
from kprobes.cli.places import parse_place
from kprobes.decorators import definition
from kprobes.errors import UsageError
from kprobes.events.decode import Decoder
from kprobes.events.record import Event
from kprobes.grammar.events import parse
from kprobes.model.definition import Definition
from kprobes.model.fetched import event_layout
from kprobes.model.probe import FetchHandler


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("p:mine vfs_read", True),
        ("p vfs_read %di", True),
        ("r10:mine vfs_read $retval", True),
        ("r\tvfs_read", True),
        ("p:vfs_read", False),
        ("vfs_read", False),
        ("u:libc:malloc", False),
        ("ur:libc:malloc x", False),
        ("probe this", False),
        ("", False),
    ],
)
def test_a_definition_is_told_by_its_words(text: str, is_one: bool) -> None:
    assert is_definition(text) == is_one


@pytest.mark.parametrize(
    ("text", "kind", "place"),
    [
        ("p:mine vfs_read %di", "kprobe", "vfs_read"),
        ("p vfs_read%return", "kretprobe", "vfs_read"),
        ("r:mine module:name", "kretprobe", "module:name"),
        ("p:mine ./test:0x620 %ax", "uprobe", "./test:0x620"),
        ("r /bin/cat:0x620(0x10)", "uretprobe", "/bin/cat:0x620(0x10)"),
    ],
)
def test_kind_and_place_are_told_without_the_grammar(text: str, kind: str, place: str) -> None:
    probe = definition(text, filter=" a > 1 ", strings=64)
    assert (probe.kind, probe.places) == (kind, (place,))
    assert probe.handler == FetchHandler(text, "a > 1", 64)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("p:mine vfs_read", "mine"),
        ("r10:group/mine vfs_read", "mine"),
        ("p:group.mine vfs_read", "mine"),
        ("p:group/ vfs_read", ""),
        ("p vfs_read a=@b:u8", ""),
    ],
)
def test_the_name_of_an_event_is_what_its_definition_says(text: str, name: str) -> None:
    assert event_name(definition(text)) == name


def test_what_was_parsed_before_is_a_definition_too() -> None:
    found = parse("p:mine vfs_read size=%dx", "6.1")
    assert isinstance(found, Definition)
    assert definition(found).handler == FetchHandler("p:kprobes/mine vfs_read size=%dx")


def test_what_defines_nothing_is_refused() -> None:
    for text in ("p:mine", "", "-:mine", "# p vfs_read", "q vfs_read", "p vfs_read\np vfs_write"):
        with pytest.raises(UsageError, match="defines no probe"):
            definition(text)
    for size in (15, 4097):
        with pytest.raises(UsageError, match="for a string"):
            definition("p vfs_read", strings=size)


def test_a_definition_where_none_goes_says_so() -> None:
    with pytest.raises(UsageError, match="is a definition"):
        parse_place("p:mine vfs_read %di")


def event_of(line: str, **values: bytes) -> Event:
    found = parse(line, "7.2")
    assert isinstance(found, Definition)
    layout = event_layout(found)
    record = bytearray(layout.size)
    for field in layout.fields:
        content = values.get(field.name.replace("[", "_").rstrip("]"), b"")
        record[field.offset : field.offset + len(content)] = content
    return Decoder([layout], ["vfs_read"]).decode([bytes(record)])[0]


def test_arguments_are_shown_by_their_types() -> None:
    event = event_of(
        "p:mine vfs_read a=%di:s16 b=%di:x32 c=+0(%si):char d=+0(%si):string e=+0(%si):string f=+0(%si):u8[2] "
        "g=%ip:symbol h=%ip:symstr name=+0(%si):string[2]",
        a=struct.pack("<h", -2), b=b"\x10", c=b"x", d=b"text", e=b"(fault)", f_0=b"\1", f_1=b"\2", g=b"\x20", h=b"\x30",
        name_0=b"one", name_1=b"(fault)",
    )  # fmt: skip
    shown = 'a=-2 b=0x10 c=\'x\' d="text" e=(fault) f={1,2} g=0x20 h="0x30" name={"one",(fault)}'
    assert show_arguments(event, lambda value: value) == shown
    assert json_arguments(event) == {
        "a": -2, "b": 16, "c": "x", "d": "text", "e": None, "f": [1, 2], "g": 32, "h": 48, "name": ["one", None],
    }  # fmt: skip
    assert list(values_of(event)) == ["a", "b", "c", "d", "e", "f", "g", "h", "name"]


@pytest.mark.parametrize(
    ("name", "is_text"),
    [("name", True), ("arg2", True), ("who", True), ("arg4", True), ("fd", False), ("arg1", False), ("list", False)],
)
def test_a_key_is_text_where_the_argument_of_its_name_is(name: str, is_text: bool) -> None:
    text = "p:mine vfs_read name=+0(%si):string +8(%si):ustring who=$comm $comm fd=%di:s32 list=+0(%dx):string[2]"
    assert bool(string_room(text, name)) == is_text


@pytest.mark.parametrize("option", [["--filter", "a > 1"], ["--strings", "64"]])
def test_what_is_for_definitions_is_refused_without_one(option: list[str]) -> None:
    parser = Parser("trace", "", "")
    add_definition_options(parser, strings=True)
    arguments = parser.parse_args(option)
    check_filter(arguments, ["vfs_read", "p:mine vfs_read"])
    with pytest.raises(UsageError, match=f"{option[0]} is for definitions"):
        check_filter(arguments, ["vfs_read"])
    check_filter(parser.parse_args([]), ["vfs_read"])
