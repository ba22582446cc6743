"""The interpreter does what the nodes' docstrings say."""

import struct

import pytest
from back.programs import Build, P, handler
from front.cases import compile_text

from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.nodes import I64, U64, Block, Fault, Function, IntType, Load, ReadText, Return, Slot, Value
from kprobes.compiler.ir.world import DryWorld, Frame
from kprobes.model.mapspec import Count, HashMap, Histogram

I8 = IntType(8, True)


def run(handler_, *frames, world=None, **options):
    interpreter = Interpreter(handler_, world or DryWorld(), **options)
    for frame in frames:
        interpreter.enter(frame)
    return interpreter


def result(build, value):
    """Return what *value* is at the end."""
    made = build.handler(events=(build.emit([value]),))
    (record,) = run(made, Frame()).world.records
    return struct.unpack_from("<q", record, 8)[0]


@pytest.mark.parametrize(
    ("op", "left", "right", "wanted"),
    [("div", -7, 2, -4), ("mod", -7, 2, 1), ("div", 7, -2, -4), ("mod", 7, -2, -1), ("div", 7, 0, 0), ("mod", 7, 0, 0),
     ("add", 127, 1, -128), ("mul", 100, 2, -56), ("shl", 1, 7, -128), ("shl", 1, 8, 1), ("shr", -128, 1, -64)],
)  # fmt: skip
def test_arithmetic_wraps_and_rounds_down(op, left, right, wanted):
    build = Build()
    assert result(build, build.binary(op, build.const(I8, left), build.const(I8, right))) == wanted


def test_conversions_extend_by_the_sign_of_the_source():
    build = Build()
    assert result(build, build.convert(build.const(I8, -1), U64)) == -1
    build = Build()
    assert result(build, build.convert(build.const(IntType(8, False), 255), I64)) == 255


def test_a_read_that_fails_gives_zero_and_one_fault_a_hit():
    build = Build()
    address = build.argument(0)
    loaded, text = Value(50, I64), Slot("t", None, 8)
    build.nodes += [Load(P, loaded, address, 8, "any"), ReadText(P, text, address, 0, "any"), Fault(P)]
    layout = build.emit([loaded])
    made = build.handler(events=(layout,), slots=(text,))
    memory = {("user", 0x1000): b"hello wo" + struct.pack("<q", -5)}
    done = run(made, Frame(arguments=(0x1000,)), Frame(arguments=(0x2000,)), world=DryWorld(memory))
    assert [struct.unpack_from("<q", record, 8)[0] for record in done.world.records] == [-5, 0]
    assert (done.counters.hits, done.counters.faults) == (2, 2)


def test_a_text_that_ends_before_unreadable_memory_is_read():
    text = Slot("t", None, 16)
    address = Value(1, U64)
    build = Build()
    build.nodes = [*build.nodes]
    address = build.argument(0)
    build.nodes.append(ReadText(P, text, address, 0, "kernel"))
    made = build.handler(slots=(text,))
    done = run(made, Frame(arguments=(0x1000,)), world=DryWorld({("kernel", 0x1000): b"abc\0"}))
    assert done.counters.faults == 0


def test_a_record_without_room_is_lost():
    build = Build()
    made = build.handler(events=(build.emit([build.argument(0)]),))
    done = run(made, *[Frame(arguments=(n,)) for n in range(5)], world=DryWorld(room=3))
    assert (len(done.world.records), done.counters.lost) == (3, 2)


PAIR = """
def h(file, count):
    if count == 99:
        return
    start = count
    ret = yield
    seen[start] += ret
"""


def test_calls_are_matched_and_every_call_is_a_hit_or_missed():
    seen = HashMap("seen")
    done = Interpreter(compile_text(PAIR, "kretprobe vfs_read", seen=seen), DryWorld(), calls=2)

    def enter(call, count):
        done.enter(Frame(arguments=(0, 0, count), call=call))

    def leave(call, result):
        done.leave(Frame(result=result, call=call))

    enter(1, 10)
    enter(2, 20)
    enter(3, 30)  # no room: missed
    leave(3, 7)
    leave(2, 200)
    enter(2, 99)  # filtered: a hit that keeps nothing
    leave(2, 1)
    enter(1, 11)  # the return of the first call was not seen
    leave(1, 110)
    leave(5, 1)  # began before the probe
    assert done.counters.hits == 3
    assert done.counters.missed == 2
    pairs = {struct.unpack("<q", key)[0]: struct.unpack("<q", value)[0] for key, value in done.read_map("seen")}
    assert pairs == {20: 200, 11: 110}


def test_a_stale_record_is_not_taken_for_a_call_that_kept_nothing():
    done = Interpreter(compile_text(PAIR, "kretprobe vfs_read", seen=HashMap("seen")), DryWorld())
    done.enter(Frame(arguments=(0, 0, 10), call=1))
    done.enter(Frame(arguments=(0, 0, 99), call=1))
    done.leave(Frame(result=5, call=1))
    assert (done.counters.hits, done.counters.missed) == (1, 1)
    assert done.read_map("seen") == []


def test_maps_have_the_layouts_of_the_engines():
    count, sizes = Count("count"), Histogram("sizes", by=str)
    text = "def h(file, count_):\n    count.add(3)\n    sizes.add(5, by=comm)\n".replace("count_", "count")
    made = compile_text(text.replace("count.add", "total.add"), "kprobe vfs_read", total=count, sizes=sizes)
    done = run(made, Frame(arguments=(0,) * 4), world=DryWorld(texts={"comm": b"a" * 20}))
    ((key, value),) = done.read_map("count")
    assert (key, value) == (b"", struct.pack("<4Q", 3, 0, 0, 0))
    ((key, value),) = done.read_map("sizes")
    assert key == b"a" * 15 + b"\0"
    assert [n for n, one in enumerate(struct.unpack("<66Q", value)) if one] == [4]


def test_registers_can_be_written_where_the_world_allows():
    made = compile_text("def h():\n    regs.ax = regs.di + 1\n", "kprobe vfs_read unsafe")
    done = run(made, Frame(registers={"di": 41}))
    assert done.world.written == [("register", "ax", 42)]


def test_an_empty_handler_counts():
    made = handler(Function("h", "entry", (), (Block("s", (), Return(P)),)))
    assert run(made, Frame(), Frame()).counters.hits == 2
