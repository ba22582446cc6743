"""Raw maps to sums, distributions and dicts."""

from __future__ import annotations

import pickle
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.errors import FormatError
from kprobes.events.aggregate import Keyed, merge, read_map, read_stats
from kprobes.events.distribution import Distribution
from kprobes.events.value import StackId, SymbolAddress
from kprobes.model.layout import LOG2_BUCKETS, Buckets, Field, MapLayout
from kprobes.model.mapspec import Count, HashMap, Histogram, Stack, String, Symbol, Unsigned


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *(n % 2**64 for n in numbers))


def log2(**counts: int) -> tuple[int, ...]:
    """Return counts with `b3=7` meaning 7 in bucket 3."""
    found = [0] * LOG2_BUCKETS
    for name, count in counts.items():
        found[int(name[1:])] = count
    return tuple(found)


def test_a_count_without_key_is_the_sum_of_its_shards() -> None:
    layout = Count("hits").layout(4)
    assert read_map([(b"", words(1, 2, 3, 4))], layout) == 10


def test_a_count_may_be_negative() -> None:
    assert read_map([(b"", words(-5, 2))], Count("balance").layout(2)) == -3


def test_a_count_by_string_is_a_dict_largest_first() -> None:
    layout = Count("opens", by=str).layout(4)
    pairs = [(b"cat".ljust(16, b"\0"), words(2)), (b"make".ljust(16, b"\0"), words(9))]
    found = read_map(pairs, layout)
    assert found == {"make": 9, "cat": 2}
    assert list(found) == ["make", "cat"]
    assert str(found) == "make 9\ncat  2"


def test_keys_that_read_the_same_are_added_up() -> None:
    layout = Count("opens", by=str).layout(1)
    pairs = [(b"cat\0rest".ljust(16, b"\0"), words(2)), (b"cat".ljust(16, b"\0"), words(3))]
    assert read_map(pairs, layout) == {"cat": 5}


def test_a_key_of_several_fields_is_a_tuple() -> None:
    layout = Count("by", by=(int, Unsigned(4), String(5), bool)).layout(1)
    key = struct.pack("<qI5s", -7, 9, b"abc").ljust(24, b"\0") + words(1)
    assert read_map([(key, words(1))], layout) == {(-7, 9, "abc", True): 1}


def test_stacks_and_symbols_stay_numbers_with_a_type() -> None:
    layout = Count("by", by=(Stack, Symbol)).layout(1)
    ((stack, symbol),) = read_map([(words(3, 0xFFFFFFFF81000010), words(1))], layout)
    assert (type(stack), stack) == (StackId, 3)
    assert (type(symbol), symbol) == (SymbolAddress, 0xFFFFFFFF81000010)


def test_a_histogram_sums_its_shards() -> None:
    layout = Histogram("usecs").layout(2)
    found = read_map([(b"", words(*log2(b3=1, b4=2), *log2(b4=5)))], layout)
    assert found == Distribution(Buckets(), log2(b3=1, b4=7))


def test_an_array_map_that_gave_nothing_is_empty() -> None:
    assert read_map([], Count("hits").layout(4)) == 0
    assert not read_map([], Histogram("usecs").layout(4))


def test_histograms_by_key_come_busiest_first_and_print_with_headings() -> None:
    layout = Histogram("usecs", by=int, linear=(0, 30, 10)).layout(1)
    found = read_map([(words(1), words(0, 1, 0, 0, 0)), (words(-2), words(0, 1, 2, 0, 0))], layout)
    assert list(found) == [-2, 1]
    assert str(found).splitlines() == [
        "-2",
        " [0, 10) 1 |@@@@@@@@@@@@@@@@@@@@                    |",
        "[10, 20) 2 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|",
        "",
        "1",
        "[0, 10) 1 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|",
    ]


def test_a_hash_is_a_plain_dict() -> None:
    layout = HashMap("opened", key=int, value=(int, String(8))).layout(1)
    assert read_map([(words(5), words(-1) + b"etc\0\0\0\0\0")], layout) == {5: (-1, "etc")}


def test_a_site_key_becomes_its_name() -> None:
    layout = MapLayout("by", "count", 4, 8, 10, key=(Field("key", "site", 0, 4),))
    assert read_map([(struct.pack("<I", 1), words(2))], layout, ("a", "b")) == {"b": 2}
    assert read_map([(struct.pack("<I", 9), words(2))], layout, ("a", "b")) == {"?": 2}


@pytest.mark.parametrize(
    ("layout", "pair"),
    [
        (Count("c", by=int).layout(1), (b"1234", words(1))),
        (Count("c", by=int).layout(1), (words(1), b"")),
        (Count("c").layout(4), (b"", words(1, 2, 3))),
        (Histogram("h").layout(1), (b"", words(1, 2, 3))),
        (HashMap("m").layout(1), (words(1), words(1, 2))),
        (MapLayout("r", "ring", 0, 0, 4096), (b"", b"")),
    ],
)
def test_bytes_of_another_size_than_the_layouts_are_refused(layout: MapLayout, pair: tuple[bytes, bytes]) -> None:
    with pytest.raises(FormatError):
        read_map([pair], layout)


def test_terminal_controls_in_a_key_are_not_printed_raw() -> None:
    assert "\x1b" not in str(Keyed({"\x1b[2J": 1, ("a", "\x9b"): 2}))
    assert "\x9b" not in str(Keyed({"\x1b[2J": 1, ("a", "\x9b"): 2}))


def test_site_counters_are_summed_over_shards() -> None:
    layout = MapLayout("stats", "stats", 4, 2 * 2 * 32, 1, shards=2)
    raw = words(10, 1, 2, 3, 20, 0, 0, 0, 5, 0, 1, 0, 1, 0, 0, 0)
    first, second = read_stats([(b"", raw)], layout, 2)
    assert (first.site, first.hits, first.missed, first.lost, first.faults) == (0, 15, 1, 3, 3)
    assert (second.site, second.hits, second.missed) == (1, 21, 0)


def test_counters_of_another_number_of_sites_are_refused() -> None:
    layout = MapLayout("stats", "stats", 4, 2 * 2 * 32, 1, shards=2)
    for pairs, sites in ([(b"", bytes(128))], 3), ([(b"", bytes(64))], 2), ([], 2):
        with pytest.raises(FormatError):
            read_stats(pairs, layout, sites)


BUCKETS = Buckets("linear", 0, 5, 3)
DISTRIBUTIONS = st.lists(st.integers(0, 9), min_size=5, max_size=5).map(lambda c: Distribution(BUCKETS, tuple(c)))
SUMS = st.dictionaries(st.sampled_from("abc"), st.integers(-9, 9)).map(Keyed)
RESULTS = [
    st.integers(-(2**63), 2**63 - 1),
    DISTRIBUTIONS,
    SUMS,
    st.dictionaries(st.sampled_from("abc"), DISTRIBUTIONS).map(Keyed),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
]


@given(st.one_of(*(st.tuples(kind, kind, kind) for kind in RESULTS)))
def test_merging_is_associative(three: tuple[Any, Any, Any]) -> None:
    one, two, last = three
    left, right = merge(merge(one, two), last), merge(one, merge(two, last))
    assert left == right
    assert str(left) == str(right) or type(left) is dict


def test_merging_adds_key_by_key_and_lets_the_later_hash_entry_stay() -> None:
    assert merge(Keyed(a=1, b=2), Keyed(b=3)) == {"a": 1, "b": 5}
    assert merge({"a": 1, "b": 2}, {"b": 3}) == {"a": 1, "b": 3}


def test_results_of_two_kinds_can_not_be_merged() -> None:
    with pytest.raises(TypeError):
        merge(1, Keyed())
    with pytest.raises(ValueError, match="different buckets"):
        merge(Distribution(BUCKETS, (0,) * 5), Distribution(Buckets(), log2()))


def test_results_travel_by_pickle() -> None:
    found = Keyed(a=Distribution(BUCKETS, (0, 1, 2, 3, 0)))
    again = pickle.loads(pickle.dumps(found))
    assert again == found
    assert type(again) is Keyed
