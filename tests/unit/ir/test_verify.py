"""The verifier takes what is well formed and names what isn't."""

import time

import pytest
from back.programs import Build, P, handler, random_arithmetic

from kprobes.compiler.ir.nodes import (
    BOOL,
    I64,
    U32,
    U64,
    Binary,
    Block,
    Branch,
    BuiltinText,
    Compare,
    CompareText,
    Const,
    ConstText,
    Convert,
    Emit,
    Function,
    IntType,
    Jump,
    Load,
    MapAdd,
    MapBump,
    MapRead,
    MapSample,
    ReadContext,
    ReadSlot,
    RestoreCall,
    Return,
    SaveCall,
    Slot,
    Value,
    WriteSlot,
)
from kprobes.compiler.ir.verify import verify
from kprobes.errors import InternalError
from kprobes.model.layout import EventLayout, Field
from kprobes.model.mapspec import Count, HashMap, Histogram, String

A, B, C, D = (Value(number, I64) for number in range(1, 5))
T = Value(9, BOOL)
NUMBER, TEXT = Slot("n", I64), Slot("t", None, 16)
COUNT, SIZES = Count("count").layout(2), Histogram("sizes", by=str).layout(2)
STATE = HashMap("state", key=int, value=(int, String(8))).layout(2)
EVENT = EventLayout(3, "e", 24, (Field("a", "int", 8, 8), Field("b", "str", 16, 8)))


def entry(*nodes, slots=(), maps=(), events=()):
    return handler(Function("h", "entry", tuple(slots), (Block("start", nodes, Return(P)),)), maps, events)


def graph(*blocks, slots=()):
    return handler(Function("h", "entry", tuple(slots), blocks))


ONE = Const(P, A, 1)

MALFORMED = {
    "assigned twice": entry(ONE, Const(P, A, 2)),
    "not defined on every path": entry(Binary(P, B, "add", A, A), ONE),
    "goes to nowhere, which is not there": graph(Block("start", (), Jump(P, "nowhere"))),
    "two blocks have one label": graph(Block("start", (), Jump(P, "start")), Block("start", (), Return(P))),
    "300 doesn't fit u8": entry(Const(P, Value(1, IntType(8, False)), 300)),
    "-129 doesn't fit i8": entry(Const(P, Value(1, IntType(8, True)), -129)),
    "the types differ": entry(ONE, Const(P, Value(2, U64), 1), Binary(P, C, "add", A, Value(2, U64))),
    "has another type than where it was made": entry(ONE, Convert(P, B, Value(1, U64))),
    "no operator is called 'pow'": entry(ONE, Binary(P, B, "pow", A, A)),
    "arithmetic on truth values": entry(Const(P, T, 1), Binary(P, Value(2, BOOL), "add", T, T)),
    "truth values have no order": entry(Const(P, T, 1), Compare(P, Value(2, BOOL), "lt", T, T)),
    "the result is no bool": entry(ONE, Compare(P, B, "lt", A, A)),
    "the slot n is not one of the function's": entry(ReadSlot(P, A, NUMBER)),
    "the slot n is of another type": entry(ReadSlot(P, Value(1, U64), NUMBER), slots=(NUMBER,)),
    "is no byte buffer": entry(BuiltinText(P, NUMBER, "comm"), slots=(NUMBER,)),
    "no text is called 'home'": entry(BuiltinText(P, TEXT, "home"), slots=(TEXT,)),
    "the text is too long": entry(ConstText(P, TEXT, b"0123456789abcdef"), slots=(TEXT,)),
    "a NUL in the text": entry(CompareText(P, T, TEXT, b"a\0b"), slots=(TEXT,)),
    "no register is called 'foo'": entry(ReadContext(P, A, "register", 0, "foo")),
    "a hit has no 'weather'": entry(ReadContext(P, A, "weather")),
    "the return value is not there yet": entry(ReadContext(P, A, "return")),
    "no address space is called 'outer'": entry(ONE, Load(P, B, A, 0, "outer")),
    "an address of less than 64 bits": entry(Const(P, Value(1, U32), 1), Load(P, B, Value(1, U32))),
    "there is no map 'lost'": entry(ONE, MapAdd(P, "lost", (), A)),
    "the map sizes is a histogram, not a count": entry(ONE, MapAdd(P, "sizes", (), A), maps=(SIZES,)),
    "the key has 1 fields, and 0 operands are given": entry(ONE, MapSample(P, "sizes", (), A, A), maps=(SIZES,)),
    "%1 is no byte buffer": entry(ONE, MapSample(P, "sizes", (A,), A, A), maps=(SIZES,)),
    "the amount has not 64 bits": entry(
        Const(P, Value(1, U32), 1), MapAdd(P, "count", (), Value(1, U32)), maps=(COUNT,)
    ),
    "the value of state is not one number": entry(ONE, MapBump(P, "state", (A,), A), maps=(STATE,)),
    "the field value1 is a text": entry(ONE, MapRead(P, "state", (A,), T, (B, C)), maps=(STATE,)),
    "there is no event 4": entry(ONE, Emit(P, 4, (A,)), events=(EVENT,)),
    "the field a has another size": entry(
        Const(P, Value(1, U32), 1), Emit(P, 3, (Value(1, U32), TEXT)), slots=(TEXT,), events=(EVENT,)
    ),
    "the field b lies outside": entry(
        ONE, Emit(P, 3, (A, TEXT)), slots=(TEXT,), events=(EventLayout(3, "e", 20, EVENT.fields),)
    ),
    "comes elsewhere than at an end": entry(SaveCall(P, ()), ONE),
    "comes elsewhere than at the start": entry(RestoreCall(P, ())),
    "the parts don't go together": entry(SaveCall(P, ())),
    "branches on a number": graph(Block("start", (ONE,), Branch(P, A, "end", "end")), Block("end", (), Return(P))),
    "which has no bound": graph(
        Block("start", (Const(P, T, 1),), Jump(P, "loop")),
        Block("loop", (), Branch(P, T, "loop", "end")),
        Block("end", (), Return(P)),
    ),
    "jumps into the middle of a loop": graph(
        Block("start", (Const(P, T, 1),), Branch(P, T, "one", "two")),
        Block("one", (), Jump(P, "two"), bound=3),
        Block("two", (), Branch(P, T, "one", "end"), bound=3),
        Block("end", (), Return(P)),
    ),
}


@pytest.mark.parametrize("message", MALFORMED)
def test_what_is_malformed_is_named(message):
    with pytest.raises(InternalError) as caught:
        verify(MALFORMED[message])
    assert message in str(caught.value), str(caught.value)


def test_a_value_defined_in_one_branch_only_is_not_there_after_both():
    blocks = (
        Block("start", (Const(P, T, 1),), Branch(P, T, "yes", "end")),
        Block("yes", (ONE,), Jump(P, "end")),
        Block("end", (WriteSlot(P, NUMBER, A),), Return(P)),
    )
    with pytest.raises(InternalError, match=r"h\.entry, block end, node 0 \(WriteSlot\): %1 is not defined"):
        verify(graph(*blocks, slots=(NUMBER,)))


def test_a_bounded_loop_and_a_diamond_pass():
    counter = Slot(".c", U64)
    n, limit, one, more = Value(1, U64), Value(2, U64), Value(3, U64), Value(4, U64)
    verify(
        graph(
            Block("start", (Const(P, Value(5, BOOL), 1),), Branch(P, Value(5, BOOL), "left", "right")),
            Block("left", (), Jump(P, "head")),
            Block("right", (), Jump(P, "head")),
            Block(
                "head",
                (ReadSlot(P, n, counter), Const(P, limit, 5), Compare(P, T, "lt", n, limit)),
                Branch(P, T, "body", "end"),
                bound=5,
            ),
            Block(
                "body", (Const(P, one, 1), Binary(P, more, "add", n, one), WriteSlot(P, counter, more)), Jump(P, "head")
            ),
            Block("end", (), Return(P)),
            slots=(counter,),
        )
    )


def test_a_call_is_saved_and_taken_back():
    start = Slot("start", U64)
    saved = Value(1, U64)
    fields = (Field("start", "uint", 0, 8),)
    first = Function("h", "entry", (), (Block("s", (Const(P, saved, 1), SaveCall(P, (saved,))), Return(P)),))
    last = Function("h", "exit", (start,), (Block("s", (RestoreCall(P, (start,)),), Return(P)),))
    verify(handler(first, exit_=last, call_fields=fields))
    with pytest.raises(InternalError, match="the parts don't go together"):
        verify(handler(first, exit_=Function("h", "exit", (), (Block("s", (), Return(P)),)), call_fields=fields))
    with pytest.raises(InternalError, match="the call has 0 fields"):
        verify(handler(first, exit_=last))


def test_a_handler_has_a_part():
    with pytest.raises(InternalError, match="has no part"):
        verify(handler())


def test_small_handlers_are_verified_within_two_milliseconds():
    import random

    made = random_arithmetic(random.Random(1))
    best = min(_seconds(made) for _ in range(5))
    assert best < 0.002


def _seconds(made):
    before = time.process_time()
    verify(made)
    return time.process_time() - before


def test_builds_of_the_tests_are_well_formed():
    build = Build()
    verify(build.handler(events=(build.emit([build.argument(0)]),)))
