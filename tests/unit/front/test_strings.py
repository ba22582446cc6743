"""Strings in handlers are Python's, as bytes: what CPython says of an expression, the interpreter says too."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from front.cases import compile_text
from front.dry import Dry
from kprobes.errors import CompileError

USER = 0x7F00_0000_1000
ROOM = 24
STRINGS = st.text("ab/.x", max_size=ROOM - 1)
BOUNDS = st.none() | st.integers(-ROOM - 3, ROOM + 3)


def run(body, text, count=0, other=""):
    """Return what a handler of *body* sends, for the strings s and t and the number n."""
    names = f"s, t, n = buf.string({ROOM}), string(int(buf) + 256, {ROOM}), int(count)"
    source = f"def h(buf, count):\n    {names}\n    {body}\n"
    memory = text.encode().ljust(256, b"\0") + other.encode().ljust(256, b"\0")
    dry = Dry(compile_text(source), memory={("user", USER): memory})
    (sent,) = dry.hit(0, USER, count & (1 << 64) - 1)
    assert dry.faults == 0
    return list(sent.values())


def spelled(bound):
    return "" if bound is None else str(bound)


@settings(max_examples=120)
@given(STRINGS, BOUNDS, BOUNDS)
def test_slices_between_literals_are_those_of_python(text, start, stop):
    assert run(f"emit(s[{spelled(start)}:{spelled(stop)}])", text) == [text[start:stop]]


@settings(max_examples=80)
@given(STRINGS, st.integers(-ROOM - 3, ROOM + 3), st.integers(-6, 6))
def test_slices_between_computed_bounds_are_those_of_python(text, number, width):
    found = run(f"emit(a=s[n : n + {width}], b=s[n:], c=s[:n], d=s[-2:n], e=s[3:n])", text, number)
    assert found == [text[number : number + width], text[number:], text[:number], text[-2:number], text[3:number]]


@settings(max_examples=60)
@given(STRINGS, st.integers(-ROOM - 3, ROOM + 3))
def test_an_element_is_that_of_python_or_nothing(text, number):
    wanted = text[number] if -len(text) <= number < len(text) else ""
    assert run("emit(s[n], len(s))", text, number) == [wanted, len(text)]


@settings(max_examples=60)
@given(STRINGS, st.text("ab/.x", min_size=1, max_size=6), STRINGS)
def test_searches_find_what_python_finds(text, wanted, other):
    literal = f"a={wanted!r} in s, b=s.endswith({wanted!r}), c=s.startswith({wanted!r})"
    body = f"emit({literal}, d=s.endswith(t), e=s.startswith(t))"
    expected = [
        wanted in text,
        text.endswith(wanted),
        text.startswith(wanted),
        text.endswith(other),
        text.startswith(other),
    ]
    assert run(body, text, other=other) == expected


SPECS = ("", "d", "x", "X", "#x", "05", "08d", "02x", "#010x", "020d", "#06X")


@settings(max_examples=120)
@given(st.sampled_from(SPECS), st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-20, 20), STRINGS)
def test_formats_come_out_as_in_python(spec, number, text):
    body = f"emit(f=f'<{{n:{spec}}}>{{s}}{{n > 0}}|{{s:.3}}', j='[' + s + ']')"
    assert run(body, text, number) == [f"<{number:{spec}}>{text}{number > 0}|{text:.3}", f"[{text}]"]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 9), (0, 10), (-1, 0), (-10, 99), (-100, 5)])
def test_a_known_range_bounds_the_size_of_a_formatted_string(low, high):
    handler = compile_text(f"def h(count):\n    emit(a=f'{{int(count) % {high - low + 1} + {low}}}')\n")
    assert handler.events[0].fields[0].size == max(len(str(low)), len(str(high))) + 1


@pytest.mark.parametrize("spec", ["5d", ">5", "b", "o", "c", "e", ",d", "+d", "{n}d", "021d"])
def test_formats_that_handlers_do_not_know_are_refused_with_a_hint(spec):
    with pytest.raises(CompileError) as caught:
        compile_text(f"def h(count):\n    n = int(count)\n    emit(a=f'{{n:{spec}}}')\n")
    assert caught.value.hint
