"""Claims about times of day."""

import time

from kprobes.events import clock
from kprobes.events.clock import WallClock, format_local, format_utc, own_offset

SLACK_NS = 1_000_000  # for one of the clocks being set right


def test_a_time_of_now_becomes_the_time_of_day():
    before = time.time_ns()
    found = WallClock().wall_ns(time.monotonic_ns())
    assert before - SLACK_NS < found < time.time_ns() + SLACK_NS


def test_a_clock_that_is_asked_when_nobody_runs_us_is_asked_again(monkeypatch):
    """The distance is right but for half of the shortest time that asking took."""
    monotonic, wall = iter([0, 900, 900, 910, 910, 911, 911, 990, 990, 1999]), iter([100, 1002, 1010, 1090, 1990])
    monkeypatch.setattr(clock.time, "monotonic_ns", lambda: next(monotonic))
    monkeypatch.setattr(clock.time, "time_ns", lambda: next(wall))
    assert own_offset() == 1010 - 910


def test_the_distance_of_the_clocks_is_kept_current():
    asked = iter([100, 250, 300])
    seldom, always = WallClock(lambda: next(asked), every_s=1000), WallClock(lambda: next(asked), every_s=0)
    assert (seldom.wall_ns(1), seldom.wall_ns(2)) == (101, 102)
    assert (always.wall_ns(3), always.wall_ns(4)) == (253, 304)


def test_times_are_written_with_all_their_digits():
    assert format_utc(1_700_000_000_000_000_007) == "2023-11-14T22:13:20.000000007Z"
    assert format_utc(-1) == "1969-12-31T23:59:59.999999999Z"
    assert format_local(1_700_000_000_123_456_789).endswith(":20.123456")
