"""Small IR handlers: built by hand, and at random."""

from __future__ import annotations

from kprobes.compiler.ir.nodes import (
    BOOL,
    I64,
    U64,
    Binary,
    Block,
    Compare,
    Const,
    Convert,
    Emit,
    Function,
    Handler,
    IntType,
    MapSample,
    Place,
    ReadContext,
    Return,
    Value,
)
from kprobes.model.layout import RECORD_HEADER, EventLayout, Field
from kprobes.model.mapspec import Histogram

P = Place(1, 0)
TYPES = tuple(IntType(bits, signed) for bits in (8, 16, 32, 64) for signed in (False, True))
OPERATORS = ("add", "sub", "mul", "div", "mod", "and", "or", "xor", "shl", "shr")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
# Values at which widths, signs and roundings go wrong.
EDGES = (0, 1, 2, 3, 7, 8, 63, 64, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, (1 << 31) - 1, 1 << 31,
         (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 2, (1 << 64) - 1000)  # fmt: skip


class Build:
    """Nodes with their values numbered."""

    def __init__(self):
        self.nodes = []
        self.count = 0

    def value(self, kind):
        self.count += 1
        return Value(self.count, kind)

    def const(self, kind, number):
        number &= (1 << kind.bits) - 1
        if kind.signed and number >> (kind.bits - 1):
            number -= 1 << kind.bits
        to = self.value(kind)
        self.nodes.append(Const(P, to, number))
        return to

    def argument(self, index, kind=U64):
        to = self.value(kind)
        self.nodes.append(ReadContext(P, to, "argument", index))
        return to

    def binary(self, op, left, right):
        to = self.value(left.type)
        self.nodes.append(Binary(P, to, op, left, right))
        return to

    def compare(self, op, left, right):
        to = self.value(BOOL)
        self.nodes.append(Compare(P, to, op, left, right))
        return to

    def convert(self, source, kind):
        to = self.value(kind)
        self.nodes.append(Convert(P, to, source))
        return to

    def emit(self, values):
        """Emit *values* as 64-bit fields; return the layout."""
        wide = [value if value.type.bits == 64 else self.convert(value, I64) for value in values]
        fields = tuple(Field(f"f{i}", "int", RECORD_HEADER + 8 * i, 8) for i in range(len(wide)))
        self.nodes.append(Emit(P, 7, tuple(wide)))
        return EventLayout(7, "event", RECORD_HEADER + 8 * len(wide), fields)

    def handler(self, maps=(), events=(), name="h", slots=()):
        return handler(
            Function(name, "entry", tuple(slots), (Block("start", tuple(self.nodes), Return(P)),)), maps, events
        )


def handler(entry=None, maps=(), events=(), exit_=None, call_fields=(), name="h"):
    return Handler(name, entry, exit_, tuple(maps), tuple(events), tuple(call_fields), "test.py", {1: "the line"})


def random_arithmetic(random, size=60):
    """Return a handler that computes *size* values from six arguments and constants, and emits some of them."""
    build = Build()
    values = [build.argument(index, random.choice(TYPES)) for index in range(6)]
    values += [build.const(random.choice(TYPES), random.choice(EDGES)) for _ in range(4)]
    for _ in range(size):
        what = random.random()
        left = random.choice(values)
        if left.type.bits == 1 or what < 0.25:
            values.append(build.convert(left, random.choice((*TYPES, BOOL))))
            continue
        alike = [value for value in values if value.type == left.type]
        right = random.choice(alike) if random.random() < 0.6 else build.const(left.type, random.choice(EDGES))
        if what < 0.8:
            values.append(build.binary(random.choice(OPERATORS), left, right))
        else:
            values.append(build.compare(random.choice(COMPARISONS), left, right))
    layout = build.emit(values[-24:])
    return build.handler(events=(layout,))


def random_hits(random, count):
    return [[random.choice(EDGES) if random.random() < 0.6 else random.getrandbits(64) for _ in range(6)]
            for _ in range(count)]  # fmt: skip


# Histograms, and samples about the edges of their buckets.
SCALES = [
    (Histogram("h"), EDGES),
    (Histogram("h", linear=(0, 100, 7)), [*range(-3, 120), *EDGES]),
    (Histogram("h", linear=(-50, 50, 10)), [*(n & (1 << 64) - 1 for n in range(-70, 70)), *EDGES]),
    (Histogram("h", linear=(1000, 2000, 250)), [999, 1000, 1249, 1250, 1999, 2000, 2001, *EDGES]),
    (Histogram("h", by=int), EDGES),
]
SCALE_NAMES = ["log2", "linear", "around zero", "above zero", "keyed"]


def sampling(spec, kind):
    """Return a handler that puts its first argument, of *kind*, into the histogram *spec* with a weight of 3."""
    sample, weight, key = Value(1, kind), Value(2, I64), Value(3, I64)
    nodes = (
        ReadContext(P, sample, "argument", 0),
        Const(P, weight, 3),
        Const(P, key, 5),
        MapSample(P, "h", (key,) if spec.by else (), sample, weight),
    )
    return handler(Function("h", "entry", (), (Block("start", nodes, Return(P)),)), (spec.layout(4),))
