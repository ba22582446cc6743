"""Waits side by side."""

from __future__ import annotations

from threading import Barrier

import pytest

from kprobes.engines.kernel.together import MOST, together


def test_they_wait_for_each_other_and_all_are_carried_out():
    done: list[int] = []
    meeting = Barrier(MOST)

    def wait() -> None:
        meeting.wait(60)
        done.append(1)

    together([wait] * MOST)
    together([lambda: done.append(1)] * (MOST + 1))
    together([])
    assert len(done) == 2 * MOST + 1


def test_an_error_is_raised_when_all_have_ended():
    done: list[int] = []

    def fail() -> None:
        raise OSError("one")

    with pytest.raises(OSError, match="one"):
        together([fail, lambda: done.append(1), lambda: done.append(2)])
    assert sorted(done) == [1, 2]
