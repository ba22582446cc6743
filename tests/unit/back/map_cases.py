"""Handlers over each sort of map, and hits for them: what every machine has to make the same of."""

from __future__ import annotations

from front.cases import compile_text

from kprobes.events.aggregate import read_map
from kprobes.model.aggregates import Avg, Max, Min, Sum
from kprobes.model.containers import Array, Queue
from kprobes.model.cwords import char, u32
from kprobes.model.mapspec import HashMap, String
from kprobes.model.structs import struct


@struct
class Key:
    a: u32
    name: char[8]


U64 = (1 << 64) - 1
NUMBERS = [7, 3, 0, 12, -5 & U64, 1 << 63, U64, (1 << 63) - 1, 5, 5, 1 << 40]

# name: (source, the maps by the names in the source, hits)
CASES = {
    "sums": ("def h(n):\n    total.add(n)\n    each.add(n, by=n & 3)\n",
             {"total": Sum("total"), "each": Sum("each", by=int)}, [[n] for n in NUMBERS]),
    "least and greatest": (
        "def h(n):\n    low.add(n)\n    high.add(n)\n    lows.add(n, by=n & 1)\n    highs.add(n, by=(n & 1, comm))\n",
        {"low": Min("low"), "high": Max("high"), "lows": Min("lows", by=int), "highs": Max("highs", by=(int, str))},
        [[n] for n in NUMBERS]),
    "signed least and greatest": (
        "def h(i):\n    low.add(i)\n    high.add(i - 100)\n    lows.add(int(i), by=i & 1)\n",
        {"low": Min("low"), "high": Max("high"), "lows": Min("lows", by=int)}, [[n] for n in NUMBERS]),
    "the extremes of i64": (
        "def h(i):\n    low.add(MAX)\n    high.add(MIN)\n    highs.add(MIN, by=i & 1)\n",
        {"low": Min("low"), "high": Max("high"), "highs": Max("highs", by=int), "MAX": (1 << 63) - 1, "MIN": -1 << 63},
        [[1], [2]]),
    "nothing added": ("def h(n):\n    if n == 99:\n        low.add(n)\n        mean.add(n)\n    other.add(1)\n",
                      {"low": Min("low"), "mean": Avg("mean"), "other": Sum("other")}, [[1]]),
    "means": ("def h(n):\n    mean.add(n)\n    means.add(n, by=n & 3)\n",
              {"mean": Avg("mean"), "means": Avg("means", by=int)}, [[n] for n in NUMBERS]),
    "array": (
        "def h(n):\n    a[n] = n * 2\n    a[3] += n\n    emit(a[n], a[2], len(a))\n    a[n] -= 1\n",
        {"a": Array("a", 5)}, [[n] for n in NUMBERS]),
    "array of records": (
        "def h(n):\n    a[n % 3] = (n, comm())\n    x, name = a[(n + 1) % 3]\n    emit(x=x, name=name)\n",
        {"a": Array("a", 3, value=(int, String(12)))}, [[n] for n in NUMBERS]),
    "queue": (
        "def h(n):\n    if n & 1:\n        q.push(n)\n    else:\n        emit(a=q.pop(), b=q.pop(-7))\n",
        {"q": Queue("q", entries=3)}, [[n] for n in [1, 3, 2, 4, 5, 7, 9, 11, 6, 13, 8, 8, 8]]),
    "queue of records": (
        "def h(n):\n    q.push((n, comm()))\n    if n & 1:\n        x, name = q.pop()\n        emit(x=x, name=name)\n",
        {"q": Queue("q", value=(int, str), entries=5)}, [[n] for n in range(20)]),
    "structs": (
        "def h(n):\n    k = Key(n, comm())\n    s.add(n, by=k)\n    m.add(n, by=(k, n))\n"
        "    a[n & 3] = k\n    q.push(k)\n"
        "    emit(x=a[n & 3].a, y=q.pop().a)\n    q.push(k)\n",
        {"Key": Key, "s": Sum("s", by=Key), "m": Max("m", by=(Key, int)), "a": Array("a", 4, value=Key),
         "q": Queue("q", value=Key)}, [[n] for n in range(6)]),
    "full maps": (
        "def h(n):\n    total.add(n, by=n)\n    low.add(n, by=n)\n    mean.add(n, by=n)\n    m[n] = 1\n"
        "    m[n + 100] += 1\n",
        {"total": Sum("total", by=int, entries=4), "low": Min("low", by=int, entries=4),
         "mean": Avg("mean", by=int, entries=4), "m": HashMap("m", entries=4)}, [[n] for n in range(9)]),
}  # fmt: skip


def compiled(name):
    """Return the handler of a case, and its hits: each number as every argument."""
    source, names, hits = CASES[name]
    return compile_text(source, "kprobe ints", **names), [[number] * 6 for (number,) in hits]


def content(layouts, read):
    """Return what maps hold, by name, keys in order; *read* gives a map's pairs."""
    found = {}
    for layout in layouts:
        value = read_map(read(layout.name), layout)
        found[layout.name] = sorted(value.items()) if isinstance(value, dict) else value
    return found


def dropped(machine):
    """Return the dropped writes of an interpreter's maps."""
    return {name: one.dropped for name, one in machine.maps.items() if getattr(one, "dropped", 0)}
