"""The controller's end of a channel, against a guest that is a thread with the other end of a socket."""

import socket
from contextlib import suppress
from threading import Thread

import pytest

from kprobes.engines.vm.channel import ACKNOWLEDGE, Channel
from kprobes.engines.vm.frames import FrameReader, encode_frame
from kprobes.engines.vm.trouble import describe_error
from kprobes.errors import FormatError, SymbolNotFoundError, TargetError


class Guest:
    """Answers calls with what *answers* gives, and remembers what it was sent."""

    def __init__(self, answers):
        here, self.there = socket.socketpair()
        self.heard = []
        self.channel = Channel(here, lambda: TargetError("the guest is gone"))
        self._answers = answers
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        reader = FrameReader()
        while data := self._receive():
            for head, blob in reader.feed(data):
                self.heard.append((head, blob))
                if "call" in head:
                    self._answers(self, head, blob)

    def _receive(self):
        try:
            return self.there.recv(1 << 16)
        except OSError:
            return b""

    def send(self, head, blob=b""):
        self.there.sendall(encode_frame(head, blob))

    def all_heard(self):
        """End the channel, and return all that was sent."""
        self.channel.close()
        self._thread.join()
        return self.heard

    def hang_up(self):
        with suppress(OSError):
            self.there.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def guest():
    made = []

    def make(answers):
        made.append(Guest(answers))
        return made[-1]

    yield make
    for one in made:
        one.channel.close()
        one.hang_up()
        one.there.close()


def echo(guest, head, blob):
    guest.send({"id": head["id"], "result": head.get("word")}, blob[::-1])


def test_a_call_returns_result_and_blob(guest):
    assert guest(echo).channel.call("echo", b"abc", word="hi") == ("hi", b"cba")


def test_calls_of_several_threads_get_their_own_answers(guest):
    channel = guest(echo).channel
    found = {}
    threads = [Thread(target=lambda n=n: found.update({n: channel.call("echo", word=n)[0]})) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: n for n in range(20)}


def test_an_error_of_the_guest_is_raised_here(guest):
    def fail(guest, head, _):
        guest.send({"id": head["id"], "error": describe_error(SymbolNotFoundError("x", nearest=("y",)))})

    with pytest.raises(SymbolNotFoundError) as caught:
        guest(fail).channel.call("attach")
    assert caught.value.nearest == ("y",)


def test_a_silent_guest_is_told_after_the_time(guest):
    with pytest.raises(TargetError, match="did not answer 'hello' within"):
        guest(lambda *_: None).channel.call("hello", timeout_s=0.05)


def test_a_call_that_was_swallowed_is_said_again_until_it_is_answered(guest):
    def answer_the_third(guest, head, _):
        if len(guest.heard) == 3:
            guest.send({"id": head["id"], "result": "heard"})

    there = guest(answer_the_third)
    assert there.channel.call("hello", b"seed", timeout_s=60, repeat_s=0.01) == ("heard", b"")
    assert there.all_heard() == [there.heard[0]] * len(there.heard)
    assert len(there.heard) >= 3


def test_saying_it_again_ends_in_time(guest):
    there = guest(lambda *_: None)
    with pytest.raises(TargetError, match="did not answer 'hello' within"):
        there.channel.call("hello", timeout_s=0.1, repeat_s=0.02)
    assert 2 <= len(there.all_heard()) <= 5


def test_streams_keep_their_order_and_are_acknowledged_now_and_then(guest):
    def push(guest, head, _):
        for number in range(3):
            guest.send({"stream": 7, "n": number}, b"x" * (1, 1, ACKNOWLEDGE)[number])
        guest.send({"id": head["id"], "result": None})

    one = guest(push)
    one.channel.call("attach")
    stream = one.channel.stream(7)
    assert [stream.take(1)[0]["n"] for _ in range(3)] == [0, 1, 2]
    assert stream.take(0) is None
    one.channel.call("attach")
    acknowledged = [head for head, _ in one.heard if "ack" in head]
    assert acknowledged == [{"ack": 7, "bytes": ACKNOWLEDGE + 2}]


def test_what_came_before_the_end_is_still_there(guest):
    def push_and_go(guest, _head, _):
        guest.send({"stream": 1}, b"last words")
        guest.hang_up()

    channel = guest(push_and_go).channel
    with pytest.raises(TargetError, match="gone"):
        channel.call("attach")
    assert channel.stream(1).take(1) == ({"stream": 1}, b"last words")
    with pytest.raises(TargetError, match="gone"):
        channel.stream(1).take(1)


def test_nonsense_from_the_guest_ends_the_channel_with_its_reason(guest):
    def babble(guest, *_):
        guest.there.sendall(b"\xff" * 64)

    with pytest.raises(FormatError):
        guest(babble).channel.call("hello", timeout_s=60)


def test_closing_twice_is_closing(guest):
    channel = guest(echo).channel
    channel.close()
    channel.close()
    with pytest.raises(TargetError):
        channel.call("echo")
