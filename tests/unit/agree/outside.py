"""What generated handlers find outside of themselves: maps, constants, and plain functions that they call."""

from __future__ import annotations

import enum

from kprobes import emit
from kprobes.model import words
from kprobes.model.aggregates import Avg, Max, Min, Sum
from kprobes.model.containers import Array, Queue
from kprobes.model.cwords import bits, char, i16, i64, u8, u16, u32, u64
from kprobes.model.mapspec import Count, HashMap, Histogram, String, Unsigned
from kprobes.model.structs import struct

LIMIT = 6
DEBUG = True
PORTS = (22, 80, 443)
SHELL = "bash"


class Kind(enum.IntEnum):
    SMALL = 1
    LARGE = 4096


@struct
class Inner:
    x: u32
    y: i16


@struct
class Own:
    """What lies at a node, seen otherwise."""

    id: u64
    weight: i64
    items: Inner[2]
    tag: u8
    rest: u8[7]
    low: bits(u32, 3)
    high: bits(i64, 40)
    name: char[9]


@struct
class Key:
    number: u16
    text: char[5]


def double(x):
    return 2 * x


def clamp(x, low=0, *, high=100):
    if x < low:
        return low
    if x > high:
        return high
    return x


def both(x):
    return x + LIMIT, x ^ 3


def first_above(limit):
    for step in range(8):
        if step * step > limit:
            return step
    return -1


def last_of(node):
    turns = 0
    while node is not None and turns < 4:
        node = node.next
        turns += 1
    return turns


def label(node):
    return node.name if node.on else node.text.string(10)


def note(counter, amount, by):
    if by == "idle" or not amount:
        return
    counter.add(amount, by=by)


def told(value):
    emit(told=value)
    return value - 1


FUNCTIONS = (double, clamp, both, first_above, last_of, label, note, told)


def maps(ending: str = "") -> dict[str, object]:
    """Return new maps, one of each kind, some of them too small; their own names have the *ending*."""
    made = (
        Count(f"total{ending}"),
        Count(f"by_text{ending}", by=str, entries=64),
        Count(f"by_pair{ending}", by=(int, str), entries=64),
        Count(f"few{ending}", by=int, entries=3),
        Histogram(f"sizes{ending}"),
        Histogram(f"spread{ending}", linear=(-50, 200, 25)),
        Histogram(f"each{ending}", by=Unsigned(2), entries=4),
        HashMap(f"seen{ending}", entries=128),
        HashMap(f"wide{ending}", key=(Unsigned(2), String(7)), value=(int, String(9), bool, Unsigned(4)), entries=64),
        HashMap(f"small{ending}", key=str, value=Unsigned(2), entries=2),
        HashMap(f"recent{ending}", key=(int, String(5)), value=(Unsigned(4), int), entries=512, lru=True),
        Sum(f"sum{ending}", by=Unsigned(2), entries=8),
        Min(f"least{ending}"),
        Max(f"most{ending}", by=String(4), entries=8),
        Avg(f"mean{ending}"),
        Array(f"places{ending}", 5, value=(int, String(6))),
        Array(f"flat{ending}", 4),
        Queue(f"line{ending}", value=(int, Unsigned(2)), entries=4),
    )
    return {one.name.removesuffix(ending): one for one in made}


def names(ending: str = "") -> dict[str, object]:
    """Return all names that a generated handler may use, with new maps."""
    constants = {
        "LIMIT": LIMIT,
        "DEBUG": DEBUG,
        "PORTS": PORTS,
        "SHELL": SHELL,
        "Kind": Kind,
        "Own": Own,
        "Key": Key,
        "Inner": Inner,
    }
    builtins = {name: value for name, value in vars(words).items() if not name.startswith("_")}
    return {**builtins, **constants, **{one.__name__: one for one in FUNCTIONS}, **maps(ending)}
