"""The hand: a small process beside the controller that does everything that needs ptrace.

A tracer that is killed between changing a thread's registers and putting them back leaves the target broken, and a
breakpoint without its tracer kills it. So the tracer isn't the controller: it is a fork of it that ignores the
terminal's signals, does one transaction at a time, and when the controller is gone (its end of the pipe is closed)
detaches what is attached and ends. It talks to the controller by two pipes, length and pickle, both ends our own code.

Where only the controller itself has the right to trace (Yama lets a process trace its descendants, and the target may
be the controller's child), the same loop runs in a thread of the controller.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import signal
import struct
import threading
from typing import TYPE_CHECKING, Any, Protocol

from kprobes import errors
from kprobes.errors import InternalError, KprobesError, TargetError
from kprobes.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = struct.Struct("<I")
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTSTP)
STANDARD_STREAMS = 3


class Service(Protocol):
    """What runs in the hand: its methods are called by name."""

    def idle(self) -> int:
        """Do what has to be done between calls; return after how many milliseconds to be called again, -1 for never."""

    def watch(self) -> list[int]:
        """Return descriptors that end the waiting when they become readable; `idle` is called then."""

    def close(self) -> None:
        """The controller is gone, or has finished: undo everything."""


class Hand:
    """The controller's end. *make* builds the service in the hand; a context manager.

    *here* runs it in a thread of this process instead of a fork.
    """

    def __init__(self, make: Callable[[], Service], *, here: bool = False) -> None:
        to_hand, self._out = os.pipe()
        self._in, from_hand = os.pipe()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.pid = 0
        if here:
            self._thread = threading.Thread(
                target=_serve, args=(make, to_hand, from_hand), name="kprobes-hand", daemon=True
            )
            self._thread.start()
            self.pid = os.getpid()
            return
        self.pid = os.fork()
        if not self.pid:
            _run_forked(make, to_hand, from_hand)
        os.close(to_hand)
        os.close(from_hand)

    def __enter__(self) -> Hand:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Tell whether calls can be made."""
        return self._out >= 0

    def call(self, name: str, *arguments: object) -> Any:
        """Call the service's method *name* and return its result.

        Raises:
            KprobesError: what the method raised.
            TargetError: the hand is gone.
        """
        with self._lock, uninterrupted():  # an answer that nobody takes would be taken for the next one's
            if not self.is_open:
                raise TargetError("the target has been let go")
            try:
                _send(self._out, (name, arguments))
                kind, value = _receive(self._in)
            except (OSError, EOFError):
                raise TargetError(
                    "the helper process that holds the target was killed",
                    hint="`kprobes detach PID` takes the probes away",
                ) from None
        if kind == "error":
            raise _decode_error(*value)
        return value

    def close(self) -> None:
        """End the hand, which undoes what is in place; idempotent."""
        with self._lock:
            if not self.is_open:
                return
            os.close(self._out)
            self._out = -1
            with contextlib.suppress(OSError, EOFError):
                _receive(self._in)
            os.close(self._in)
            if self._thread is not None:
                self._thread.join()
            else:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(self.pid, 0)


def _run_forked(make: Callable[[], Service], to_hand: int, from_hand: int) -> None:
    status = 1
    try:
        gc.disable()
        signal.set_wakeup_fd(-1)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        _close_others({to_hand, from_hand})
        wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        _serve(make, to_hand, from_hand, wake)
        status = 0
    finally:
        os._exit(status)


def _close_others(kept: set[int]) -> None:
    """Close every descriptor that the fork inherited, so that no pipe or lock of the controller's outlives it."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) >= STANDARD_STREAMS and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def leave_terminal() -> None:
    """Leave the controller's session and streams; a program started before keeps both."""
    with contextlib.suppress(OSError):
        os.setsid()
    try:
        null = os.open(os.devnull, os.O_RDWR)
    except OSError:  # in some containers it isn't there for everybody: the end of a pipe that nobody reads will do
        unread, null = os.pipe()
        os.close(unread)
    for stream in range(STANDARD_STREAMS):
        os.dup2(null, stream)
    os.close(null)


def _serve(make: Callable[[], Service], incoming: int, outgoing: int, wake: int = -1) -> None:
    """Serve calls until the controller closes its end. *wake* becomes readable when a child or tracee changes."""
    service: Service | None = None
    try:
        try:
            service = make()
        except KprobesError as error:
            _answer_all(error, incoming, outgoing)
            return
        except OSError as error:
            _answer_all(InternalError(f"starting the helper process: {error}"), incoming, outgoing)
            return
        while _serve_one(service, incoming, outgoing, wake):
            pass
    finally:
        if service is not None:
            with contextlib.suppress(KprobesError):
                service.close()
        os.close(outgoing)
        os.close(incoming)


def _answer_all(error: KprobesError, incoming: int, outgoing: int) -> None:
    """Answer every call with *error*: there is no service."""
    with contextlib.suppress(OSError, EOFError):
        while True:
            _receive(incoming)
            _send(outgoing, ("error", _encode_error(error)))


def _serve_one(service: Service, incoming: int, outgoing: int, wake: int) -> bool:
    """Wait for a call and answer it, or see to the target; tell whether to go on."""
    if wake >= 0:
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)
    wait_ms = service.idle()
    poller = select.poll()
    poller.register(incoming, select.POLLIN)
    for watched in (*service.watch(), *((wake,) if wake >= 0 else ())):
        poller.register(watched, select.POLLIN)
    ready = dict(poller.poll(wait_ms if wait_ms >= 0 else None))
    if incoming not in ready:
        return True
    try:
        name, arguments = _receive(incoming)
    except (OSError, EOFError):
        return False
    try:
        answer = ("ok", getattr(service, name)(*arguments))
    except KprobesError as error:
        answer = ("error", _encode_error(error))
    except Exception as error:  # noqa: BLE001 - it must not take the hand down while it holds a target
        answer = ("error", _encode_error(InternalError(f"{name}: {type(error).__name__}: {error}")))
    try:
        _send(outgoing, answer)
    except OSError:
        return False
    return True


def _encode_error(error: KprobesError) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    return type(error).__name__, error.args, dict(error.__dict__)


def _decode_error(name: str, arguments: tuple[object, ...], fields: dict[str, object]) -> KprobesError:
    kind = getattr(errors, name, TargetError)
    error: KprobesError = kind.__new__(kind, *arguments)
    error.args = arguments
    for field, content in fields.items():
        setattr(error, field, content)
    return error


def _send(file: int, message: object) -> None:
    content = pickle.dumps(message)
    data = memoryview(_LENGTH.pack(len(content)) + content)
    while data:
        data = data[os.write(file, data) :]


def _receive(file: int) -> tuple[str, Any]:
    (size,) = _LENGTH.unpack(_read_exactly(file, _LENGTH.size))
    message: tuple[str, Any] = pickle.loads(_read_exactly(file, size))  # noqa: S301
    return message


def _read_exactly(file: int, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = os.read(file, size - len(content))
        if not part:
            raise EOFError
        content += part
    return content
