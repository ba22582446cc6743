"""What is taken from maps is neither lost nor seen twice, and what is read leaves out what was taken."""

from __future__ import annotations

import struct

import pyarrow
import pytest

from kprobes.errors import UsageError
from kprobes.events.holdings import Holdings
from kprobes.model.aggregates import Avg, Max, Min, Sum
from kprobes.model.containers import Array, Queue
from kprobes.model.layout import meta_of, rank_of, value_of
from kprobes.model.mapspec import Count, HashMap, Histogram


class Source:
    """Raw maps by name; *taken* notes which were taken."""

    def __init__(self, **maps: list[tuple[bytes, bytes]]) -> None:
        self.maps = maps
        self.taken: list[str] = []

    def read_map(self, name: str) -> list[tuple[bytes, bytes]]:
        return list(self.maps[name])

    def take_map(self, name: str) -> list[tuple[bytes, bytes]]:
        self.taken.append(name)
        return self.maps.pop(name)


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *(number & (1 << 64) - 1 for number in numbers))


def test_a_count_is_taken_by_remembering_what_it_was():
    source = Source(c=[(b"", words(3, 4))])
    held = Holdings([Count("c").layout(2)], source)
    assert held.take("c") == 7
    assert held.read("c") == 0
    source.maps["c"] = [(b"", words(5, 3))]
    assert held.read("c") == held.take("c") == 1, "one share grew by two, the other one shrank: amounts may be negative"
    assert source.taken == []


def test_keys_that_did_not_grow_since_they_were_taken_are_left_out():
    source = Source(c=[(words(1), words(10)), (words(2), words(20))])
    held = Holdings([Count("c", by=int).layout(1)], source)
    assert held.take("c") == {1: 10, 2: 20}
    source.maps["c"] = [(words(1), words(10)), (words(2), words(25)), (words(3), words(1))]
    assert held.read("c") == {2: 5, 3: 1}
    held.clear("c")
    assert held.read("c") == {}


def test_windows_of_one_key_are_read_as_one_and_taken_by_the_engine():
    spec = Sum("s", by=int)
    source = Source(s=[(words(7, 0), words(1)), (words(7, 1), words(2)), (words(8, 1), words(5))])
    held = Holdings([spec.layout(4)], source)
    assert held.read("s") == {8: 5, 7: 3}
    assert held.take("s") == {8: 5, 7: 3}
    assert source.taken == ["s"]


@pytest.mark.parametrize("kind", ["min", "max"])
def test_ranks_order_values_and_lead_back_to_them(kind):
    values = [-(1 << 63), -5, -1, 0, 1, 7, (1 << 63) - 1]
    ranks = [rank_of(kind, value) for value in values]
    assert sorted(ranks) == (ranks if kind == "max" else ranks[::-1])
    assert [value_of(kind, rank) for rank in ranks] == values
    assert rank_of(kind, 1 << 63) == rank_of(kind, (1 << 63) - 1)


def test_the_better_of_all_shares_counts_and_empty_ones_do_not():
    low = [words(0, 0) + words(rank_of("min", 5), 1) + words(rank_of("min", -3), 1), words(0, 0) * 3]
    layout = Min("low").layout(3)
    assert [Holdings([layout], Source(low=[(b"", raw)])).read("low") for raw in low] == [-3, None]
    extreme = words(0, 0) + words(rank_of("max", -1 << 63), 1)
    assert Holdings([Max("m").layout(2)], Source(m=[(b"", extreme)])).read("m") == -1 << 63


def test_an_unknown_map_and_a_queue_are_refused():
    held = Holdings([Queue("q").layout(1)], Source(q=[(b"", words(1)), (b"", words(2))]))
    with pytest.raises(UsageError, match="no handler of this session uses a map 'x'"):
        held.read("x")
    with pytest.raises(UsageError, match="can't be read without taking"):
        held.read("q")
    assert held.take("q") == [1, 2]


def test_writes_that_found_no_room_are_told_by_map():
    layouts = [Count("a", by=int).layout(1), Count("b", by=int).layout(1)]
    metas = [meta_of(one) for one in layouts]
    source = Source(**{metas[0].name: [(b"", words(3, 17))], metas[1].name: [(b"", words(1, 0))]})
    assert Holdings([*layouts, *metas], source).dropped() == {"a": 17}


def test_tables_have_typed_columns():
    layouts = [Count("c", by=(str, int)).layout(1), Histogram("h", linear=(0, 20, 10)).layout(1), Avg("m").layout(2),
               Array("a", 2, value=(int, bool)).layout(1), HashMap("e", key=int, value=str).layout(1)]  # fmt: skip
    source = Source(
        c=[(b"name".ljust(16, b"\0") + words(-5), words(9))],
        h=[(b"", words(1, 2, 0, 4))],
        m=[(b"", words(2, 10, 2, 20))],
        a=[(b"", words(1, 1, -2, 0))],
        e=[],
    )
    held = Holdings(layouts, source)
    assert held.table("c").to_pydict() == {"key0": ["name"], "key1": [-5], "value": [9]}
    rows = {"low": [None, 0, 10, 20], "high": [0, 10, 20, None], "count": [1, 2, 0, 4]}
    assert held.table("h").to_pydict() == rows
    assert held.table("m").to_pydict() == {"count": [4], "total": [30], "mean": [7.5]}
    assert held.table("a").to_pydict() == {"index": [0, 1], "value0": [1, -2], "value1": [True, False]}
    assert held.table("e").schema == pyarrow.schema([("key", pyarrow.int64()), ("value", pyarrow.string())])
