"""What can be said from bucket counts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.events.distribution import Distribution
from kprobes.model.layout import LOG2_BUCKETS, Buckets

LINEAR = Buckets("linear", 10, 5, 3)


def of(*values: int) -> Distribution:
    """Return the log2 distribution of *values*, sorted as the layout says."""
    counts = [0] * LOG2_BUCKETS
    for value in values:
        counts[0 if value < 0 else 1 if value == 0 else value.bit_length() + 1] += 1
    return Distribution(Buckets(), tuple(counts))


def test_rows_run_from_the_first_to_the_last_filled_bucket() -> None:
    assert of(-4, 0, 1, 6).rows == [(None, 0, 1), (0, 1, 1), (1, 2, 1), (2, 4, 0), (4, 8, 1)]
    assert of(2**64 - 1).rows == [(2**63, 2**64, 1)]


def test_linear_rows_are_open_at_both_ends() -> None:
    rows = Distribution(LINEAR, (1, 2, 3, 4, 5)).rows
    assert rows == [(None, 10, 1), (10, 15, 2), (15, 20, 3), (20, 25, 4), (25, None, 5)]


def test_nothing_has_no_rows_no_marks_and_zero_for_mean_and_percentile() -> None:
    empty = of()
    assert (empty.rows, empty.marks(), empty.mean, empty.percentile(50), empty.total) == ([], (), 0.0, 0.0, 0)
    assert str(empty) == "(no values)"
    assert repr(empty) == "Distribution(total=0)"
    assert not empty


@given(st.lists(st.integers(1, 10**12), min_size=1), st.floats(0, 100))
def test_a_percentile_is_right_within_its_bucket(values: list[int], percent: float) -> None:
    found = of(*values).percentile(percent)
    exact = sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
    assert exact / 2 <= found <= exact * 2


@given(st.lists(st.integers(1, 10**12), min_size=1))
def test_the_mean_is_right_within_a_factor_of_two(values: list[int]) -> None:
    exact = sum(values) / len(values)
    assert exact / 2 <= of(*values).mean <= exact * 2


@given(st.lists(st.integers(-5, 10**6), min_size=1))
def test_percentiles_do_not_fall(values: list[int]) -> None:
    found = [of(*values).percentile(percent) for percent in (-1, 0, 1, 25, 50, 75, 99, 100, 200)]
    assert found == sorted(found)


def test_marks_are_mean_and_percentiles() -> None:
    marks = dict(Distribution(LINEAR, (0, 10, 0, 0, 0)).marks())
    assert marks == {"mean": 12.5, "p50": 12.5, "p90": 14.5, "p99": pytest.approx(14.95)}


def test_adding_is_adding_the_counts() -> None:
    assert of(1, 2) + of(2, -1) == of(-1, 1, 2, 2)
    assert (
        repr(Distribution(LINEAR, (0, 10, 0, 0, 0)))
        == "Distribution(total=10, mean≈12.5, p50≈12.5, p90≈14.5, p99≈14.95)"
    )


def test_the_text_form_has_a_bar_a_bucket() -> None:
    assert str(Distribution(LINEAR, (1, 0, 2, 0, 4))).splitlines() == [
        "    < 10 1 |@@@@@@@@@@                              |",
        "[10, 15) 0 |                                        |",
        "[15, 20) 2 |@@@@@@@@@@@@@@@@@@@@                    |",
        "[20, 25) 0 |                                        |",
        "   >= 25 4 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|",
    ]
