"""Claims about times of day."""

import time

from kprobes.events.clock import WallClock, format_local, format_utc, own_offset


def test_a_time_of_now_becomes_the_time_of_day():
    assert abs(WallClock().wall_ns(time.monotonic_ns()) - time.time_ns()) < 50_000_000
    assert abs(own_offset() - (time.time_ns() - time.monotonic_ns())) < 50_000_000


def test_the_distance_of_the_clocks_is_kept_current():
    asked = iter([100, 250])
    clock = WallClock(lambda: next(asked), every_s=0.05)
    assert (clock.wall_ns(1), clock.wall_ns(2)) == (101, 102)
    time.sleep(0.06)
    assert clock.wall_ns(3) == 253


def test_times_are_written_with_all_their_digits():
    assert format_utc(1_700_000_000_000_000_007) == "2023-11-14T22:13:20.000000007Z"
    assert format_utc(-1) == "1969-12-31T23:59:59.999999999Z"
    assert format_local(1_700_000_000_123_456_789).endswith(":20.123456")
