"""Ctrl-C in the middle of what must be whole."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from kprobes.interrupts import uninterrupted


@pytest.fixture(autouse=True)
def as_python_begins() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(times: int, done: list[str], name: str) -> None:
    """Press Ctrl-C so often, and do the rest."""
    with uninterrupted():
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        done.append(name)


def test_one_waits_until_the_end():
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        press(1, done, "all")
    assert done == ["all"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_does_not_wait():
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        press(2, done, "all")
    assert done == []


def press_within(done: list[str]) -> None:
    with uninterrupted():
        press(1, done, "inner")
        done.append("outer")


def test_within_another_it_waits_for_the_outer_end():
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        press_within(done)
    assert done == ["inner", "outer"]
