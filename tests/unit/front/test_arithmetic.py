"""Random expressions are worth what the language says they are."""

import ast
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from front.cases import compile_text
from front.dry import Dry
from front.reference import RefusedError, evaluate, settle, wrap
from kprobes.errors import CompileError

# The parameters of `ints` with their C types: bits, signed.
NAMES = {"i": (32, True), "l": (64, True), "u": (32, False), "n": (64, False), "c": (8, True), "b": (1, False)}
EDGES = (0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 1 << 31, (1 << 31) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 7)

literals = st.one_of(
    st.integers(-9, 9), st.sampled_from([16, 64, 255, 1000, 4096, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, -(1 << 63)])
).map(lambda number: f"({number})" if number < 0 else str(number))
leaves = st.one_of(st.sampled_from(sorted(NAMES)), literals)


def larger(inner):
    binary = st.sampled_from(["+", "-", "*", "//", "%", "&", "|", "^", "<<", ">>"])
    compare = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    return st.one_of(
        st.builds("({} {} {})".format, inner, binary, inner),
        st.builds("({} {} {})".format, inner, binary, inner),
        st.builds("({} {} {})".format, inner, compare, inner),
        st.builds("({} {} {} {} {})".format, inner, compare, inner, compare, inner),
        st.builds("({}{})".format, st.sampled_from(["-", "~", "+", "not "]), inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
    )


expressions = st.recursive(leaves, larger, max_leaves=8)
arguments = st.lists(
    st.one_of(st.sampled_from(EDGES), st.integers(0, (1 << 64) - 1), st.integers(0, 20)), min_size=6, max_size=6
)


def typed(raw):
    """Return what each parameter is worth when the registers hold *raw*."""
    found = {}
    for (name, (bits, signed)), number in zip(NAMES.items(), raw, strict=True):
        if bits == 1:
            found[name] = ("bool", int(number & 0xFF != 0))
            continue
        number &= (1 << bits) - 1
        if signed and number >> (bits - 1):
            number -= 1 << bits
        found[name] = ("u64" if (bits, signed) == (64, False) else "i64", number)
    return found


def outcome(text, raw):
    """Return what the compiled expression is worth, and its type in the event."""
    handler = compile_text(f"def h({', '.join(NAMES)}):\n    emit(x={text})\n", "kprobe ints")
    field = handler.events[0].fields[0]
    [event] = Dry(handler).hit(*raw)
    return field.kind, event["x"]


@settings(max_examples=150)
@given(expressions, arguments)
@example("l // n", [0, (1 << 64) - 7, 0, 2, 0, 0])
@example("n // l", [0, (1 << 64) - 2, 0, 7, 0, 0])
@example("l % n", [0, (1 << 64) - 7, 0, 5, 0, 0])
@example("n % l", [0, (1 << 64) - 5, 0, 7, 0, 0])
@example("l // n", [0, (1 << 64) - 7, 0, 0, 0, 0])
@example("(l < n)", [0, (1 << 64) - 1, 0, 0, 0, 0])
@example("(-7) // u", [0, 0, 2, 0, 0, 0])
@example("l // 4096", [0, (1 << 64) - 1, 0, 0, 0, 0])
def test_expressions_are_worth_what_the_language_says(text, raw):
    tree = ast.parse(text, mode="eval").body
    try:
        kind, number = settle(evaluate(tree, typed(raw)))
        truth = evaluate(tree, typed(raw))[0] == "bool"
    except RefusedError:
        return
    try:
        shown, value = outcome(text, raw)
    except CompileError as error:
        refusal = str(error)
    else:
        assert value == wrap(kind, number)[1], (text, shown)
        assert shown == "bool" or not truth, text
        return
    assert re.search("does not fit|shift|division by zero", refusal), text


@settings(max_examples=60)
@given(st.integers(0, 20), st.integers(-5, 20), st.sampled_from([-3, -2, -1, 1, 2, 5]), st.integers(0, (1 << 32) - 1))
def test_range_loops_turn_as_often_as_in_python(start, stop, step, raw):
    text = f"def h(u):\n    for k in range({start}, {stop}, {step}):\n        emit(k=k)\n"
    handler = compile_text(text, "kprobe ints")
    assert [event["k"] for event in Dry(handler).hit()] == list(range(start, stop, step))
    text = f"def h(u):\n    for k in range({start}, u % 16, {step}):\n        emit(k=k)\n"
    sent = Dry(compile_text(text, "kprobe ints")).hit(0, 0, raw)
    assert [event["k"] for event in sent] == list(range(start, raw % 16, step))


@settings(max_examples=60)
@given(arguments)
def test_least_most_and_absolute_are_exact(raw):
    names = {name: value for name, (_, value) in typed(raw).items()}
    text = "def h(i, l, u, n, c, b):\n    emit(min(i, n), max(i, n), min(l, n, c), max(l, u, 7), abs(c), min(n, 5))\n"
    handler = compile_text(text, "kprobe ints")
    values = list(Dry(handler).hit(*raw)[0].values())
    i, l, u, n, c = (names[key] for key in "ilunc")  # noqa: E741 - the names of the parameters
    assert values == [min(i, n), max(i, n), min(l, n, c), max(l, u, 7), abs(c), min(n, 5)]


@settings(max_examples=60)
@given(arguments)
def test_logic_and_loops_agree_with_python(raw):
    text = """def h(i, l, u, n, c, b):
    total = 0
    for k in range(12):
        if k == 3 or (c and k == c % 12):
            continue
        if not l and k > 8:
            break
        total += k if i > k else 1
    else:
        total += 100
    while u > 10:
        u //= 10
        total += u % 10
    emit(total=total, some=l or c, both=(b and i > 0), member=i in (1, 2, c), chain=0 <= c < i)
"""
    handler = compile_text(text, "kprobe ints")
    values = list(Dry(handler).hit(*raw)[0].values())
    names = {name: value for name, (_, value) in typed(raw).items()}
    i, l, u, c, b = (names[key] for key in "ilucb")  # noqa: E741
    total = 0
    for k in range(12):
        if k == 3 or (c and k == c % 12):
            continue
        if not l and k > 8:
            break
        total += k if i > k else 1
    else:
        total += 100
    while u > 10:
        u //= 10
        total += u % 10
    assert values == [total, l or c, int(bool(b and i > 0)), int(i in (1, 2, c)), int(0 <= c < i)]
