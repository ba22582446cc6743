"""A command of the guest on the user's own terminal: a shell, or anything else that talks."""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kprobes.engines.vm.guestcommand import GuestCommand
    from kprobes.engines.vm.machine import Machine

SHELL = ("sh", "-l")
READ = 1 << 14
LOOK_S = 0.05


def interact(machine: Machine, argv: Sequence[str] = SHELL, *, copy: Sequence[str] = ()) -> int:
    """Run a command in the guest with our standard streams, and return its exit status (128 + signal if killed).

    Where standard input is a terminal, the guest's command gets one of the same size, and ours passes every key on.
    """
    terminal = os.isatty(0) and os.isatty(1)
    environment = {"TERM": os.environ.get("TERM", "linux")} if terminal else {}
    command = machine.run(argv, copy=copy, sink=_show, environment=environment, terminal=terminal, input=True)
    with _raw_terminal(command) if terminal else _nothing():
        status = _forward_input(command)
    return status if status >= 0 else 128 - status


def _forward_input(command: GuestCommand) -> int:
    """Pass standard input on until the command ends; return its status."""
    sources = [0]
    while (status := command.wait(0)) is None:
        ready = select.select(sources, (), (), LOOK_S)[0]
        if ready:
            data = os.read(0, READ)
            command.write(data)
            if not data:
                sources = []
    return status


@contextmanager
def _raw_terminal(command: GuestCommand) -> Iterator[None]:
    """Hand keys on untouched, and tell the guest the terminal's size, now and whenever it changes."""
    import termios
    import tty

    def resize(*_: object) -> None:
        with suppress(OSError):
            columns, rows = os.get_terminal_size()
            command.resize(rows, columns)

    before = termios.tcgetattr(0)
    handler = signal.signal(signal.SIGWINCH, resize)
    try:
        tty.setraw(0)
        resize()
        yield
    finally:
        signal.signal(signal.SIGWINCH, handler)
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _show(descriptor: int, data: bytes) -> None:
    """Give the command's output to our own streams, byte for byte."""
    stream = sys.stderr if descriptor == 2 else sys.stdout
    stream.flush()
    stream.buffer.write(data)
    stream.buffer.flush()
