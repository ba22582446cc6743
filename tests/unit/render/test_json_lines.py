"""NDJSON."""

from __future__ import annotations

import io
import json

from hypothesis import given
from hypothesis import strategies as st

from kprobes.render.json_lines import JsonLines, json_line

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES))
def test_what_is_written_reads_back(item: dict[str, object]) -> None:
    assert json.loads(json_line(item)) == item


@given(st.dictionaries(st.text(max_size=5), st.text() | st.lists(st.text())))
def test_a_line_is_printable_ascii_whatever_is_in_it(item: dict[str, object]) -> None:
    line = json_line(item)
    assert line.isascii()
    assert line.isprintable()
    json.loads(line)


def test_objects_are_lines_with_keys_in_order() -> None:
    stream = io.StringIO()
    JsonLines(stream).write([{"b": 1, "a": "x"}, {"b": 2, "a": None}])
    assert stream.getvalue() == '{"b":1,"a":"x"}\n{"b":2,"a":null}\n'


def test_integers_are_exact() -> None:
    class Address(int):
        def __str__(self) -> str:
            return hex(self)

    assert json_line({"max": 2**64 - 1, "min": -(2**63), "at": Address(255)}) == (
        '{"max":18446744073709551615,"min":-9223372036854775808,"at":255}'
    )


def test_bytes_that_are_no_utf8_are_escaped_and_valid_ones_stay() -> None:
    broken = b"a\xffb".decode("utf-8", "surrogateescape")
    assert json.loads(json_line({"comm": broken, "raw": b"\xfe\xc3\xa9"})) == {"comm": "a\\xffb", "raw": "\\xfeé"}
    assert json.loads(json_line({"snake": "🐍\U00010c00"})) == {"snake": "🐍\U00010c00"}


def test_keys_that_are_no_strings_become_text() -> None:
    assert json.loads(json_line({"map": {(1, "x"): 2, 7: 3}})) == {"map": {"1, x": 2, "7": 3}}


def test_sets_and_other_objects_become_lists_and_text() -> None:
    assert json.loads(json_line({"set": {1}, "kind": 1j})) == {"set": [1], "kind": "1j"}
