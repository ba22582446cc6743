"""Whatever is written, there is a verdict, and what is listed is taken again as it is."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.grammar.events import Events
from kprobes.grammar.facts import KERNELS
from kprobes.model.definition import AddressPlace, Definition

PIECES = [
    "p", "r", "-", ":", "/", ".", " ", "\t", "vfs_read", "/bin/sh:", "mine", "a", "=", "%", "di", "$", "stack",
    "retval", "arg", "*", "comm", "+", "-", "u", "0", "8", "0x", "(", ")", "@", "\\", '"', "[", "]", "string", "u8",
    "b4@4/8", "->", "#", "\xe9", "\udcff", "x",
]  # fmt: skip
LINES = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
TAIL = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)
DEFINITIONS = st.one_of(LINES, TAIL.map("p:one vfs_read a=".__add__), TAIL.map("p /bin/sh:16 ".__add__))


@pytest.mark.parametrize("kind", ["kprobe", "uprobe", "dynamic"])
@given(st.sampled_from(KERNELS), st.lists(DEFINITIONS, max_size=4))
def test_every_line_has_a_verdict(kind, kernel, lines):
    events = Events(kernel, kind)
    for line in lines:
        error = events.check(line.encode("utf-8", "replace").decode("utf-8")).error
        if error is not None:
            assert error.errno > 0
            assert error.column is None or 0 <= error.column < (1 << 16)
            assert str(error)


@pytest.mark.parametrize("kind", ["kprobe", "uprobe"])
@given(st.sampled_from(KERNELS), DEFINITIONS)
def test_what_is_listed_is_taken_again_as_it_is(kind, kernel, line):
    means = Events(kernel, kind).check(line.encode("utf-8", "replace").decode("utf-8")).means
    if not isinstance(means, Definition) or isinstance(means.place, AddressPlace):
        return
    if not re.fullmatch("[A-Za-z_][A-Za-z_0-9]*", means.event):
        return  # a default name need not be one that can be given
    text = means.text
    again = Events(kernel, kind).check(text.encode("latin-1").decode("utf-8", "surrogateescape"))
    assert again.canonical is not None
    assert again.means.text == text
    assert again.means.arguments == means.arguments
