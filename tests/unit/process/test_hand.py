"""The hand: calls and errors cross, it ends with its controller, and a killed one is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from kprobes.engines.process.hand import Hand, _decode_error, _encode_error
from kprobes.errors import (
    CompileError,
    InternalError,
    SymbolNotFoundError,
    SyscallError,
    TargetError,
    UnprobeableError,
    UsageError,
)


class Echo:
    """A service that answers, fails, and leaves a trace when it is closed."""

    def __init__(self, trace: str = "") -> None:
        self.trace = trace

    def idle(self) -> int:
        return -1

    def watch(self) -> list[int]:
        return []

    def echo(self, value: object) -> object:
        return value

    def fail(self) -> None:
        raise UnprobeableError("f", "too short", hint="choose g")

    def crash(self) -> None:
        raise ZeroDivisionError

    def close(self) -> None:
        if self.trace:
            Path(self.trace).write_text("closed")


@pytest.mark.parametrize("here", [False, True])
def test_values_and_errors_cross(here: bool, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with Hand(lambda: Echo(str(trace)), here=here) as hand:
        assert hand.call("echo", {"a": [1, b"x" * 300_000]}) == {"a": [1, b"x" * 300_000]}
        with pytest.raises(UnprobeableError, match="f can't be probed: too short") as caught:
            hand.call("fail")
        assert (caught.value.hint, caught.value.reason) == ("choose g", "too short")
        with pytest.raises(InternalError, match="crash: ZeroDivisionError"):
            hand.call("crash")
    assert trace.read_text() == "closed"
    with pytest.raises(TargetError):
        hand.call("echo", 1)


def test_a_service_that_cannot_begin_says_why() -> None:
    def make() -> Echo:
        raise UsageError("no such program", hint="look again")

    with Hand(make) as hand, pytest.raises(UsageError, match="no such program"):
        hand.call("echo", 1)


def test_a_killed_hand_is_told_and_not_waited_for() -> None:
    with Hand(Echo) as hand:
        os.kill(hand.pid, signal.SIGKILL)
        with pytest.raises(TargetError, match="was killed"):
            hand.call("echo", 1)


def test_the_hand_closes_its_service_when_the_controller_is_killed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    controller = os.fork()
    if not controller:
        hand = Hand(lambda: Echo(str(trace)))
        hand.call("echo", 1)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(controller, 0)
    end = time.monotonic() + 60
    while not (trace.exists() and trace.read_text()) and time.monotonic() < end:
        time.sleep(0.005)
    assert trace.read_text() == "closed"


@pytest.mark.parametrize(
    "error",
    [
        SyscallError("mapping", 12, hint="h"),
        SymbolNotFoundError("f", nearest=("g",)),
        CompileError("bad", place=("f.py", 3, 4), source="x"),
        TargetError("gone"),
    ],
)
def test_every_error_comes_back_as_itself(error: TargetError) -> None:
    back = _decode_error(*_encode_error(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.__dict__ == error.__dict__
