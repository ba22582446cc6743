"""The records of definitions: the same fields whoever makes them."""

from __future__ import annotations

import pytest

from kprobes.errors import UsageError
from kprobes.grammar.events import parse
from kprobes.model.definition import Definition
from kprobes.model.fetched import FAULT, LARGEST_RECORD, event_layout, field_names
from kprobes.model.probe import MOST_STRING


def defined(line: str, kind: str = "kprobe", kernel: str = "7.2") -> Definition:
    found = parse(line, kernel, kind)
    assert isinstance(found, Definition)
    return found


def test_an_entry_has_its_address_and_its_arguments_by_their_fetch_types() -> None:
    line = (
        "p:mine do_sys_openat2 dfd=%di:s32 name=+0(%si):string c=+0(%si):char f=%ip:symbol t=%ip:symstr +0(%dx):u16[2]"
    )
    layout = event_layout(defined(line), 3)
    assert (layout.id, layout.name, layout.definition) == (3, "mine", defined(line).text)
    assert [(one.name, one.kind, one.size) for one in layout.fields] == [
        ("_time", "uint", 8), ("_cpu", "uint", 4), ("_pid", "uint", 4), ("_tid", "uint", 4), ("_comm", "str", 16),
        ("_ip", "symbol", 8), ("dfd", "int", 4), ("name", "str", 256), ("c", "char", 1), ("f", "symbol", 8),
        ("t", "symstr", 8), ("arg6[0]", "uint", 2), ("arg6[1]", "uint", 2),
    ]  # fmt: skip


def test_a_return_in_a_process_has_two_plain_addresses() -> None:
    layout = event_layout(defined("r:back /bin/cat:0x10 $retval", "uprobe"))
    assert [(one.name, one.kind) for one in layout.fields[5:]] == [("_func", "hex"), ("_ret", "hex"), ("arg1", "hex")]


def test_many_strings_share_the_record_unless_the_user_says_how_large_they_are() -> None:
    many = defined("p vfs_read +0(%si):string[64]")
    layout = event_layout(many)
    assert layout.size <= LARGEST_RECORD
    assert len({one.size for one in layout.fields if one.name.startswith("arg1[")}) == 1
    with pytest.raises(UsageError, match="at most"):
        event_layout(many, strings=MOST_STRING)
    assert all(one.size > len(FAULT) for one in layout.fields if one.kind == "str")
    assert field_names(many.arguments[0])[-1] == "arg1[63]"
